"""/api/chat: say something, follow the answer."""

import logging
import re
from collections.abc import Iterator
from time import monotonic
from typing import Final

from flask import Blueprint, Response, jsonify, request

from bff import events, message_ids, messages
from bff.errors import Away, Drained, InvalidRequest, NotFound
from bff.following import Answer
from bff.identity import Identity
from bff.messages import ChatRequest
from bff.ops.hub import Watch
from bff.ops.streams import Slot
from bff.relay import Relay
from bff.routes import door
from bff.routes.waiting import asking_once
from bff.settings import Settings
from bff.sse import Event, comment, encode
from bff.streaming import EventStream, How
from bff.upstream import MESSAGE_ID

bp = Blueprint("chat", __name__, url_prefix="/api/chat")
log = logging.getLogger("bff.requests")

EVENT_ID: Final = re.compile(r"[\x21-\x7e]{0,256}")
"""The broker makes them; this is what can go into a header."""


@bp.post("/stream")
def say() -> Response:
    """The message is left and its stream open before the response starts: until then failures are plain JSON."""
    identity = door.identity()
    message = messages.parse(door.body(), request.headers.get("Idempotency-Key"))
    parts = door.parts()
    parts.rate.count(identity.user_id)
    with parts.streams.enter(identity.user_id, comes_back=request.headers.get("X-Chat-Resume") == "1") as slot:
        until = parts.broker.opening()
        ticket = parts.broker.enqueue(identity, message, until, _wishes(message, parts.settings))
        answer = parts.broker.follow(identity.user_id, ticket.message_id, until)
        return _stream(answer, ticket.message_id, slot)


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
    with parts.streams.enter(identity.user_id, comes_back=True) as slot:
        answer = parts.broker.resume(identity.user_id, _checked(message_id, identity), parts.broker.opening(), after)
        if answer is not None:
            return _stream(answer, message_id, slot, retry=door.come_back_milliseconds())
        slot.release()
        return Response(status=204)  # Which tells `EventSource` not to come back.


@bp.post("/stream/<message_id>/stop")
def stop(message_id: str) -> tuple[Response, int]:
    identity = door.identity()
    door.parts().broker.stop(identity.user_id, _checked(message_id, identity))
    return jsonify(status="stopping"), 202


@bp.get("/active")
def active() -> Response:
    identity = door.identity()
    places = door.parts().broker.places(identity.user_id)
    return jsonify(messages=[place for place in places if message_ids.may_be_of(str(place["message_id"]), identity.org)])


def _checked(message_id: str, identity: Identity) -> str:
    if not MESSAGE_ID.fullmatch(message_id) or not message_ids.may_be_of(message_id, identity.org):
        raise NotFound
    return message_id


def _wishes(message: ChatRequest, settings: Settings) -> dict[str, str]:
    """What our own broker understands, where it is not what any broker does anyway."""
    wishes = {"on_busy": settings.on_busy, "on_disconnect": settings.on_disconnect}
    ours = {name: wish for name, wish in wishes.items() if wish not in {"enqueue", "continue"}}
    return ours | ({"on_busy": message.on_busy} if message.on_busy else {})


def _stream(answer: Answer, message_id: str, slot: Slot, retry: int | None = None) -> Response:
    settings = door.parts().settings
    slot.comes_back = slot.comes_back and door.parts().broker.outlives_us  # Else its reader would find nothing anywhere.
    relay = Relay(door.request_id(), tool_events=settings.relay_tool_events, expose_errors=settings.expose_upstream_errors)
    telling = _Telling(answer, relay, slot, {"request_id": door.request_id(), "message_id": message_id})
    return EventStream(
        telling.say,
        How(
            _heartbeat(settings),
            settings.heartbeat_seconds,
            settings.slow_reader_seconds,
            retry,
            ids=request.args.get("ids") != "0",
        ),
        environ=request.environ,
        slot=slot,
        close=telling.close,
        headers={"Location": f"/api/chat/stream/{message_id}", "X-Message-ID": message_id},
    )


def _heartbeat(settings: Settings) -> bytes:
    return encode(events.keepalive()) if settings.heartbeat == "event" else comment("keepalive")


class _Telling:
    """One answer being told to one browser; its end is one log line."""

    def __init__(self, answer: Answer, relay: Relay, slot: Slot, fields: dict[str, object]) -> None:
        self._answer = answer
        self._relay = relay
        self._slot = slot
        self._fields = fields
        self._began = monotonic()

    def say(self, watch: Watch) -> Iterator[Event | None]:
        return self._relay(self._events(watch))

    def _events(self, watch: Watch) -> Iterator[Event | None]:
        try:
            yield from self._answer.events(watch)
        except Away:
            if self._slot.comes_back:
                raise Drained from None  # Without an end: it goes on where it was once it can be told again.
            raise

    def close(self) -> None:
        self._answer.close()
        relay = self._relay
        fields = self._fields | {
            "ended": relay.ended or "aborted",
            "events": relay.events,
            "first_event_ms": None if relay.first_at is None else self._milliseconds(relay.first_at),
            "ms": self._milliseconds(monotonic()),
            "reconnects": self._answer.reconnects,
            "dropped": relay.dropped,
        }
        if relay.problem is not None and relay.problem.detail:
            fields["detail"] = relay.problem.detail
        log.info("the stream of %s ended", self._fields["message_id"], extra=fields)

    def _milliseconds(self, moment: float) -> int:
        return round((moment - self._began) * 1000)
