"""/api/chat: send a message, follow its reply, resume it, stop it."""

import re
from collections.abc import Callable
from typing import Final, TypeVar

from flask import Blueprint, Response, jsonify, request

from bff import errors
from bff.api import hooks, reconnects, reply_stream, services
from bff.api.adapters.ag_ui import AG_UI, RunAgentInput
from bff.api.adapters.ai_sdk import AI_SDK, ChatTransportRequest
from bff.api.adapters.base import ClientProtocol, ResumePoint, Sent, chat_id_key
from bff.api.adapters.native import NATIVE
from bff.api.destination import choose_destination, enqueue_content
from bff.api.engine_request import engine_request
from bff.api.openapi import (
    AUTH_ERRORS,
    BODY_ERRORS,
    LIMIT_ERRORS,
    REPLY_ERRORS,
    UPSTREAM_ERRORS,
    ResponseSpec,
    describe,
)
from bff.api.openapi.parameters import CHAT_RESUME, EVENT_SOURCE, IDEMPOTENCY_KEY, IDS, protocol_parameter
from bff.api.openapi.responses import CHAT_STREAM, STOPPING
from bff.api.openapi.schemas import Active, ChatReply
from bff.auth.identity import Identity
from bff.errors import InvalidRequest, NotFound
from bff.http import event_ids
from bff.upstream import message_ids, messages
from bff.upstream.broker_client import ActiveMessage, BrokerClient
from bff.upstream.message_ids import MESSAGE_ID
from bff.upstream.messages import ChatRequest

T = TypeVar("T")

bp = Blueprint("chat", __name__, url_prefix="/api/chat")
hooks.add_hooks(bp)

PROTOCOLS: Final = {"native": NATIVE, "ai-sdk": AI_SDK, "ag-ui": AG_UI}
_ACCEPT_PROTOCOL: Final = re.compile(r"text/event-stream\s*;\s*protocol=\"?([\w-]+)")


@bp.post("/stream")
@describe(
    "Send a message; the reply is streamed.",
    {200: CHAT_STREAM},
    (
        *AUTH_ERRORS,
        *BODY_ERRORS,
        *LIMIT_ERRORS,
        *UPSTREAM_ERRORS,
        errors.Busy,
        errors.Expired,
        errors.IdempotencyConflict,
    ),
    bodies=(ChatRequest, ChatTransportRequest, RunAgentInput),
    parameters=(IDEMPOTENCY_KEY, CHAT_RESUME, protocol_parameter(PROTOCOLS), IDS),
)
def stream() -> Response:
    """Enqueues the message and opens its stream before the response starts, so that earlier failures are plain JSON."""
    identity = hooks.identity()
    protocol = _requested_protocol()
    parsed = protocol.parse_request(hooks.body())
    message = messages.parse(parsed.body, request.headers.get("Idempotency-Key"))
    parts = services.parts()
    parts.rate.acquire(identity.user_id)
    with parts.streams.acquire(identity.user_id, resumable=reconnects.client_resumes()) as slot:
        broker, deadline, more = choose_destination(identity.user_id)
        chat = {"chat_id": parsed.chat_id} if parsed.chat_id else {}
        content = enqueue_content(message, parts.settings) | chat | more
        message_id = broker.enqueue(identity, content, deadline).message_id
        reply = broker.follow(identity.user_id, message_id, deadline)
        encoder = protocol.encoder and protocol.encoder(message_id, parsed.context, Sent.NOTHING)
        return reply_stream.stream_response(reply, message_id, slot, protocol, encoder, broker=broker)


@bp.post("")
@describe(
    "Send a message; the engine's whole reply is returned as JSON.",
    {200: ResponseSpec("The reply.", ChatReply)},
    (*AUTH_ERRORS, *BODY_ERRORS, *LIMIT_ERRORS, *UPSTREAM_ERRORS, *REPLY_ERRORS),
    bodies=(ChatRequest,),
)
def complete() -> Response:
    """Returns the whole reply as JSON. It comes directly from the engine."""
    identity = hooks.identity()
    message = messages.parse(hooks.body(), request.headers.get("Idempotency-Key"))
    parts = services.parts()
    parts.rate.acquire(identity.user_id)
    user = {"client_id": parts.settings.client_id, "user_id": identity.user_id, "org": identity.org}
    with engine_request() as (_, _, waiter):
        return jsonify(parts.engine.chat(message.for_upstream() | user, waiter))


@bp.get("/stream/<message_id>")
@describe(
    "Follow a reply from its start, or resume it.",
    {200: CHAT_STREAM, 204: ResponseSpec("The reply has ended, and the reader has seen its end.")},
    (*AUTH_ERRORS, *LIMIT_ERRORS, *UPSTREAM_ERRORS, errors.NotFound, errors.Expired),
    parameters=(*EVENT_SOURCE, CHAT_RESUME, protocol_parameter(PROTOCOLS), IDS),
)
def resume(message_id: str) -> Response:
    """Status 204 if nothing is left to read, which ends an `EventSource`."""
    identity = hooks.identity_or_ticket()
    after = event_ids.from_reader(request.headers.get("Last-Event-ID", ""), request.args.get("last_event_id", ""))
    protocol = _requested_protocol()
    after, sent = (after, Sent.NOTHING) if protocol is NATIVE else ResumePoint.of(after)
    # Clients of other protocols take a clean end of the stream for the end of the reply, unless they say otherwise.
    resumable = protocol is NATIVE or reconnects.client_resumes()
    with services.parts().streams.acquire(identity.user_id, resumable=resumable) as slot:
        _check_message_id(message_id, identity)
        broker, reply = _try_brokers(
            identity, lambda broker: broker.resume(identity.user_id, message_id, broker.open_deadline(), after)
        )
        if reply is not None and sent is Sent.END:
            # The reply may continue, but this client was sent an error: its protocol cannot take back output at a restart.
            reply.close()
        elif reply is not None:
            encoder = protocol.encoder and protocol.encoder(message_id, {}, sent)
            retry = reconnects.retry_milliseconds()
            return reply_stream.stream_response(reply, message_id, slot, protocol, encoder, retry, broker=broker)
        slot.release()
        return Response(status=204)


@bp.get("/stream/<chat_id>/stream")
@describe(
    "Resume the latest reply in a chat; for the AI SDK, which uses chat ids of its own.",
    {200: CHAT_STREAM, 204: ResponseSpec("No reply is running in this chat.")},
    (*AUTH_ERRORS, *LIMIT_ERRORS, *UPSTREAM_ERRORS, errors.NotFound, errors.Expired),
    parameters=(*EVENT_SOURCE, CHAT_RESUME, protocol_parameter(PROTOCOLS), IDS),
)
def resume_latest(chat_id: str) -> Response:
    """Resumes the last message that waits or runs and was sent with this chat id. The AI SDK uses this URL.

    Of an external broker that does not keep chat ids, the user's last message.
    """
    possible = {chat_id_key(chat_id), None}
    active = [message for message in _active_messages(hooks.identity_or_ticket()) if message.chat_id in possible]
    return resume(active[-1].message_id) if active else Response(status=204)


@bp.post("/stream/<message_id>/stop")
@describe(
    "Stop a reply, or remove its message from the queue. Idempotent.",
    {202: STOPPING},
    (*AUTH_ERRORS, *UPSTREAM_ERRORS, errors.NotFound, errors.Expired),
)
def stop(message_id: str) -> tuple[Response, int]:
    identity = hooks.identity()
    _check_message_id(message_id, identity)
    _try_brokers(identity, lambda broker: broker.stop(identity.user_id, message_id))
    return jsonify(status="stopping"), 202


@bp.get("/active")
@describe(
    "List the user's queued and running messages.",
    {200: ResponseSpec("The messages, in the order of the queue.", Active)},
    (*AUTH_ERRORS, *UPSTREAM_ERRORS),
)
def active() -> Response:
    shown = [message._asdict() for message in _active_messages(hooks.identity())]
    return jsonify(messages=[{name: fields[name] for name in ("message_id", "state", "position")} for fields in shown])


def _active_messages(identity: Identity) -> list[ActiveMessage]:
    """The user's messages in this org that wait or run, in order."""
    messages = services.parts().own_broker.queue_positions(identity.user_id)
    if external := _external_broker(identity):
        messages += external.queue_positions(identity.user_id)
    return [message for message in messages if message_ids.may_be_of(message.message_id, identity.org)]


def _check_message_id(message_id: str, identity: Identity) -> None:
    """Raises NotFound."""
    if not MESSAGE_ID.fullmatch(message_id) or not message_ids.may_be_of(message_id, identity.org):
        raise NotFound


def _try_brokers(identity: Identity, call: Callable[[BrokerClient], T]) -> tuple[BrokerClient, T]:
    """Calls the bundled broker, then an external one that numbers its events. Raises NotFound, an UpstreamFailure."""
    own_broker = services.parts().own_broker
    try:
        return own_broker, call(own_broker)
    except NotFound:
        if (external := _external_broker(identity)) is None:
            raise
    return external, call(external)


def _external_broker(identity: Identity) -> BrokerClient | None:
    """An external broker that numbers its events; another one's messages are in our own queue. Raises an UpstreamFailure."""
    parts = services.parts()
    is_external = parts.broker is not parts.own_broker
    return parts.broker if is_external and parts.broker.numbers_events(identity.user_id) else None


def _requested_protocol() -> ClientProtocol:
    """By the query, else by Accept. Raises InvalidRequest."""
    name = request.args.get("protocol")
    if name is None:
        match = _ACCEPT_PROTOCOL.search(request.headers.get("Accept", ""))
        name = match[1] if match else "native"
    if name not in PROTOCOLS:
        raise InvalidRequest(f"protocol: must be one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
