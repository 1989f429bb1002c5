"""/api/chat: say something, follow the answer."""

import re
from typing import Any, Final

from flask import Blueprint, Response, jsonify, request

from bff import events, message_ids, messages, trace
from bff.errors import InvalidRequest, NotFound
from bff.following import Answer
from bff.identity import Identity
from bff.messages import ChatRequest
from bff.ops.streams import Slot
from bff.protocols import ClientProtocol, Place, Words, translate
from bff.protocols.ag_ui import AG_UI
from bff.protocols.ai_sdk import AI_SDK
from bff.protocols.native import NATIVE
from bff.relay import Relay
from bff.routes import door
from bff.routes.telling import Telling
from bff.routes.waiting import asking_once
from bff.settings import Settings
from bff.sse import comment, encode
from bff.streaming import EventStream, How
from bff.upstream import MESSAGE_ID

bp = Blueprint("chat", __name__, url_prefix="/api/chat")

EVENT_ID: Final = re.compile(r"[\x21-\x7e]{0,256}")
"""The broker makes them; this is what can go into a header."""
PROTOCOLS: Final = {"native": NATIVE, "ai-sdk": AI_SDK, "ag-ui": AG_UI}
_ACCEPTED: Final = re.compile(r"text/event-stream\s*;\s*protocol=\"?([\w-]+)")


@bp.post("/stream")
def say() -> Response:
    """The message is left and its stream open before the response starts: until then failures are plain JSON."""
    identity = door.identity()
    protocol = _protocol()
    asked = protocol.asked(door.body())
    message = messages.parse(asked.body, request.headers.get("Idempotency-Key"))
    parts = door.parts()
    parts.rate.count(identity.user_id)
    with parts.streams.enter(identity.user_id, comes_back=_says_it_comes_back()) as slot:
        until = parts.broker.opening()
        ticket = parts.broker.enqueue(identity, message, until, wishes(message, parts.settings))
        answer = parts.broker.follow(identity.user_id, ticket.message_id, until)
        words = protocol.words and protocol.words(ticket.message_id, asked.about, False)
        return stream(answer, ticket.message_id, slot, protocol, words)


@bp.post("")
def answer() -> Response:
    """The whole answer at once, from the engine itself."""
    identity = door.identity()
    message = messages.parse(door.body(), request.headers.get("Idempotency-Key"))
    parts = door.parts()
    parts.rate.count(identity.user_id)
    about = {"client_id": parts.settings.client_id, "user_id": identity.user_id, "org": identity.org}
    with asking_once() as (_, _, watch):
        return jsonify(parts.engine.chat(message.for_upstream() | about, watch))


@bp.get("/stream/<message_id>")
def resume(message_id: str) -> Response:
    identity = door.identity_of_reader()
    parts = door.parts()
    after = request.headers.get("Last-Event-ID") or request.args.get("last_event_id", "")
    if not EVENT_ID.fullmatch(after):
        raise InvalidRequest("The last event id is none of ours.")
    protocol = _protocol()
    after, told = (after, False) if protocol is NATIVE else Place.of(after)
    # Other clients take a clean end for the whole answer.
    with parts.streams.enter(identity.user_id, comes_back=protocol is NATIVE or _says_it_comes_back()) as slot:
        answer = parts.broker.resume(identity.user_id, _checked(message_id, identity), parts.broker.opening(), after)
        if answer is not None:
            words = protocol.words and protocol.words(message_id, {}, told)
            return stream(answer, message_id, slot, protocol, words, retry=door.come_back_milliseconds())
        slot.release()
        return Response(status=204)  # Which tells `EventSource` not to come back.


@bp.get("/stream/<chat_id>/stream")
def resume_latest(chat_id: str) -> Response:
    """Where the AI SDK asks, by a chat id of its own: what the user said last, as long as its answer goes on."""
    places = _places()
    if not places:
        return Response(status=204)
    latest = max(places, key=lambda place: place["position"])
    return resume(latest["message_id"])


@bp.post("/stream/<message_id>/stop")
def stop(message_id: str) -> tuple[Response, int]:
    identity = door.identity()
    door.parts().broker.stop(identity.user_id, _checked(message_id, identity))
    return jsonify(status="stopping"), 202


@bp.get("/active")
def active() -> Response:
    return jsonify(messages=_places())


def _places() -> list[dict[str, Any]]:
    """The user's messages that wait or run; those of another org are not theirs here."""
    identity = door.identity()
    places = door.parts().broker.places(identity.user_id)
    return [place for place in places if message_ids.may_be_of(str(place["message_id"]), identity.org)]


def _checked(message_id: str, identity: Identity) -> str:
    if not MESSAGE_ID.fullmatch(message_id) or not message_ids.may_be_of(message_id, identity.org):
        raise NotFound
    return message_id


def wishes(message: ChatRequest, settings: Settings) -> dict[str, str]:
    """What our own broker understands, where it is not what any broker does anyway."""
    all_of_them = {"on_busy": settings.on_busy, "on_disconnect": settings.on_disconnect}
    ours = {name: wish for name, wish in all_of_them.items() if wish not in {"enqueue", "continue"}}
    return ours | ({"on_busy": message.on_busy} if message.on_busy else {})


def _protocol() -> ClientProtocol:
    name = request.args.get("protocol")
    if name is None:
        accepted = _ACCEPTED.search(request.headers.get("Accept", ""))
        name = accepted[1] if accepted else "native"
    if name not in PROTOCOLS:
        raise InvalidRequest(f"protocol: must be one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def _says_it_comes_back() -> bool:
    return request.headers.get("X-Chat-Resume") == "1"


def stream(
    answer: Answer,
    message_id: str,
    slot: Slot,
    protocol: ClientProtocol,
    words: Words | None,
    retry: int | None = None,
) -> Response:
    """`words`: None for our own."""
    settings = door.parts().settings
    slot.comes_back = slot.comes_back and door.parts().broker.outlives_us  # Else its reader would find nothing anywhere.
    telling = tell(answer, message_id, slot, resumed=retry is not None)
    return EventStream(
        telling.say if words is None else lambda watch: translate(telling.say(watch), words),
        How(
            _heartbeat(settings) if words is None else comment("keepalive"),
            settings.heartbeat_seconds,
            settings.slow_reader_seconds,
            retry,
            ids=protocol.ids and request.args.get("ids") != "0",
        ),
        environ=request.environ,
        slot=slot,
        close=telling.close,
        tally=telling.tally,
        headers={"Location": f"/api/chat/stream/{message_id}", "X-Message-ID": message_id, **protocol.headers},
    )


def tell(answer: Answer, message_id: str, slot: Slot, *, resumed: bool = False) -> Telling:
    settings = door.parts().settings
    relay = Relay(door.request_id(), tool_events=settings.relay_tool_events, expose_errors=settings.expose_upstream_errors)
    return Telling(answer, relay, slot, {"message_id": message_id} | trace.fields(), began=door.began(), resumed=resumed)


def _heartbeat(settings: Settings) -> bytes:
    return encode(events.keepalive()) if settings.heartbeat == "event" else comment("keepalive")
