"""/api/chat: say something, follow the answer."""

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from flask import Blueprint, Response, jsonify, request

from bff.api import hooks, reply_stream, services
from bff.api.adapters.ag_ui import AG_UI
from bff.api.adapters.ai_sdk import AI_SDK
from bff.api.adapters.base import ClientProtocol, ResumePoint, Sent
from bff.api.adapters.native import NATIVE
from bff.api.engine_request import engine_request
from bff.auth.identity import Identity
from bff.errors import InvalidRequest, NotFound
from bff.http import event_ids
from bff.upstream import message_ids, messages
from bff.upstream.broker_client import BrokerClient
from bff.upstream.message_ids import MESSAGE_ID

T = TypeVar("T")

bp = Blueprint("chat", __name__, url_prefix="/api/chat")

PROTOCOLS: Final = {"native": NATIVE, "ai-sdk": AI_SDK, "ag-ui": AG_UI}
_ACCEPTED: Final = re.compile(r"text/event-stream\s*;\s*protocol=\"?([\w-]+)")


@bp.post("/stream")
def say() -> Response:
    """The message is left and its stream open before the response starts: until then failures are plain JSON."""
    identity = hooks.identity()
    protocol = _protocol()
    parsed = protocol.parsed(hooks.body())
    message = messages.parse(parsed.body, request.headers.get("Idempotency-Key"))
    parts = services.parts()
    parts.rate.acquire(identity.user_id)
    with parts.streams.acquire(identity.user_id, comes_back=hooks.says_it_comes_back()) as slot:
        broker, deadline, handler = reply_stream.destination(identity.user_id)
        receipt = broker.enqueue(identity, reply_stream.for_broker(message, parts.settings) | handler, deadline)
        answer = broker.follow(identity.user_id, receipt.message_id, deadline)
        encoder = protocol.encoder and protocol.encoder(receipt.message_id, parsed.about, Sent.NOTHING)
        return reply_stream.stream(answer, receipt.message_id, slot, protocol, encoder, broker=broker)


@bp.post("")
def answer() -> Response:
    """The whole answer at once, from the engine itself."""
    identity = hooks.identity()
    message = messages.parse(hooks.body(), request.headers.get("Idempotency-Key"))
    parts = services.parts()
    parts.rate.acquire(identity.user_id)
    about = {"client_id": parts.settings.client_id, "user_id": identity.user_id, "org": identity.org}
    with engine_request() as (_, _, waiter):
        return jsonify(parts.engine.chat(message.for_upstream() | about, waiter))


@bp.get("/stream/<message_id>")
def resume(message_id: str) -> Response:
    identity = hooks.identity_of_reader()
    parts = services.parts()
    after = event_ids.from_reader(request.headers.get("Last-Event-ID", ""), request.args.get("last_event_id", ""))
    protocol = _protocol()
    after, sent = (after, Sent.NOTHING) if protocol is NATIVE else ResumePoint.of(after)
    # Other clients take a clean end for the whole answer.
    with parts.streams.acquire(identity.user_id, comes_back=protocol is NATIVE or hooks.says_it_comes_back()) as slot:
        known = _checked(message_id, identity)
        broker, answer = _of_either(
            identity, lambda broker: broker.resume(identity.user_id, known, broker.open_deadline(), after)
        )
        if answer is not None and sent is Sent.END:
            answer.close()  # It goes on for others: a protocol that cannot take output back has ended it at its restart.
        elif answer is not None:
            encoder = protocol.encoder and protocol.encoder(message_id, {}, sent)
            retry = hooks.come_back_milliseconds()
            return reply_stream.stream(answer, message_id, slot, protocol, encoder, retry, broker=broker)
        slot.release()
        return Response(status=204)  # Which tells `EventSource` not to come back.


@bp.get("/stream/<chat_id>/stream")
def resume_latest(chat_id: str) -> Response:
    """Where the AI SDK asks, by a chat id of its own: what the user said last, as long as its answer goes on."""
    places = _places(hooks.identity_of_reader())
    return resume(places[-1]["message_id"]) if places else Response(status=204)


@bp.post("/stream/<message_id>/stop")
def stop(message_id: str) -> tuple[Response, int]:
    identity = hooks.identity()
    known = _checked(message_id, identity)
    _of_either(identity, lambda broker: broker.stop(identity.user_id, known))
    return jsonify(status="stopping"), 202


@bp.get("/active")
def active() -> Response:
    return jsonify(messages=_places(hooks.identity()))


def _places(identity: Identity) -> list[dict[str, Any]]:
    """The user's messages that wait or run, in order; those of another org are not theirs here."""
    parts = services.parts()
    places = parts.own_broker.places(identity.user_id)
    if parts.own_broker is not parts.broker and parts.broker.numbers_events(identity.user_id):
        places += parts.broker.places(identity.user_id)
    return [place for place in places if message_ids.may_be_of(str(place["message_id"]), identity.org)]


def _checked(message_id: str, identity: Identity) -> str:
    if not MESSAGE_ID.fullmatch(message_id) or not message_ids.may_be_of(message_id, identity.org):
        raise NotFound
    return message_id


def _of_either(identity: Identity, do: Callable[[BrokerClient], T]) -> tuple[BrokerClient, T]:
    """By the bundled broker, else by an external one that numbers its events. Raises NotFound, an UpstreamFailure."""
    parts = services.parts()
    try:
        return parts.own_broker, do(parts.own_broker)
    except NotFound:
        if parts.own_broker is parts.broker or not parts.broker.numbers_events(identity.user_id):
            raise
    return parts.broker, do(parts.broker)


def _protocol() -> ClientProtocol:
    name = request.args.get("protocol")
    if name is None:
        accepted = _ACCEPTED.search(request.headers.get("Accept", ""))
        name = accepted[1] if accepted else "native"
    if name not in PROTOCOLS:
        raise InvalidRequest(f"protocol: must be one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
