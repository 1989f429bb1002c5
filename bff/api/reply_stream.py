"""One answer on its way to one browser: counted, and one line in the log, at its end."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from time import monotonic, time
from typing import Any, Final, NamedTuple

from flask import Response, request

from bff.api import hooks, services
from bff.api.adapters.base import ClientProtocol, EventEncoder, Sent, translate
from bff.config.settings import Settings
from bff.errors import ChatError, Draining, Interrupted, UpstreamFailure
from bff.http import tracing
from bff.http.responses import EventStream, StreamOptions, StreamStats
from bff.http.sse import Event, comment, encode
from bff.http.streams import Slot
from bff.http.waiting import Waiter
from bff.ops import metrics
from bff.ops.metrics import StreamEnd
from bff.upstream import events
from bff.upstream.broker_client import BrokerClient
from bff.upstream.messages import ChatRequest
from bff.upstream.reconnect import Reply
from bff.upstream.relay import Relay

log = logging.getLogger("bff.requests")

EXTERNAL_SECONDS: Final = 1.0
"""The bundled broker waits for an external one as long as we wait for a broker: it shall be the one to tell."""
_MAY_GO_ON: Final = frozenset({"", "aborted", Interrupted.code})
"""Ends of a stream after which its answer may still be written: at a restart some protocols end with `interrupted`."""


class ReplyStream:
    def __init__(
        self,
        answer: Reply,
        relay: Relay,
        fields: dict[str, Any],
        *,
        began: float,
        resumed: bool,
        comes_back: bool,
        kind: str,
        leave: Callable[[], None] | None,
    ) -> None:
        """`began`: the moment (monotonic) of the request. `comes_back`: the reader does, after an end without a last event.

        `kind`: chat, conversation or v1. `leave` is called at the end where the answer may go on without this reader.
        """
        self._answer = answer
        self._relay = relay
        self._fields = fields
        self._began = began
        self._resumed = resumed
        self._comes_back = comes_back
        self._kind = kind
        self._leave = leave
        self._replayed = 0
        self.stats = StreamStats()
        metrics.STREAMS_OPEN.labels(kind).inc()
        metrics.STREAMS_STARTED.labels("resumed" if resumed else "said", kind).inc()

    @property
    def problem(self) -> ChatError | None:
        return self._relay.problem

    def say(self, waiter: Waiter) -> Iterator[Event | None]:
        return self._relay(self._events(waiter))

    def _events(self, waiter: Waiter) -> Iterator[Event | None]:
        try:
            said = self._answer.events(waiter)
            yield from self._counted(said) if self._resumed else said
        except UpstreamFailure:
            if self._comes_back and self._answer.unfinished:
                raise Draining from None  # No end: other readers may be told another, and this one once it is back.
            raise

    def _counted(self, said: Iterator[Event | None]) -> Iterator[Event | None]:
        """What had been said before the reader came back is counted, up to the first event that had not."""
        came_back_at = time() * 1000
        for event in said:
            old = event is not None and _is_from_before(event, came_back_at)
            self._replayed += old
            yield event
            if event is not None and not old:
                break
        yield from said

    def close(self) -> None:
        log.info("the stream of %s ended", self._fields["message_id"], extra=self.end())

    def end(self) -> dict[str, Any]:
        """To be called once. What there is to say of it in a log line."""
        self._answer.close()
        if self._leave is not None and self._relay.ended in _MAY_GO_ON:
            self._leave()
        relay, stats, now = self._relay, self.stats, monotonic()
        ended = relay.ended or "aborted"
        first = None if relay.first_at is None else relay.first_at - self._began
        told = StreamEnd(
            self._kind,
            ended,
            relay.events,
            stats.bytes,
            relay.dropped,
            stats.heartbeats,
            self._answer.reconnects,
            self._replayed,
        )
        metrics.count_stream(told, first, now - self._began)
        times = {"first_event_ms": None if first is None else round(first * 1000), "ms": round((now - self._began) * 1000)}
        fields = self._fields | told._asdict() | times
        return fields | ({"detail": relay.problem.detail} if relay.problem is not None and relay.problem.detail else {})


def for_broker(message: ChatRequest, settings: Settings) -> dict[str, Any]:
    """The message, and what our own broker understands, where it is not what any broker does anyway."""
    all_of_them = {"on_busy": settings.on_busy, "on_disconnect": settings.on_disconnect}
    ours = {name: wish for name, wish in all_of_them.items() if wish not in {"enqueue", "continue"}}
    given = {"on_busy": message.on_busy, "client_message_id": message.client_message_id}
    return message.for_upstream() | ours | {name: value for name, value in given.items() if value}


class Destination(NamedTuple):
    """Who takes a new message of direct chat."""

    broker: BrokerClient
    deadline: float
    """The moment (monotonic) by which the message is left and its stream open."""
    handler: dict[str, str]
    """What the broker is told besides."""


def destination(user_id: str) -> Destination:
    """The configured broker; but what a broker says without numbers is kept in our own queue's log."""
    parts = services.parts()
    with contextlib.suppress(UpstreamFailure):  # Leaving it will show whether the broker is there.
        if parts.broker.numbers_events(user_id):
            return Destination(parts.broker, parts.broker.open_deadline(), {})
    return Destination(parts.own_broker, parts.own_broker.open_deadline() + EXTERNAL_SECONDS, {"handler": "external"})


def stream(
    answer: Reply,
    message_id: str,
    slot: Slot,
    protocol: ClientProtocol,
    encoder: EventEncoder | None,
    retry: int | None = None,
    kind: str = "chat",
    *,
    broker: BrokerClient,
    leave: Callable[[], None] | None = None,
) -> Response:
    """`encoder`: None for our own. `broker`: whose answer it is. `leave`: see ReplyStream."""
    settings = services.parts().settings
    resumed = retry is not None
    telling = tell(
        answer, message_id, kind=kind, encoder=encoder, resumed=resumed, comes_back=slot.comes_back, own=True, leave=leave
    )
    prepare_for_drain(slot, broker)
    return EventStream(
        telling.say if encoder is None else lambda waiter: translate(telling.say(waiter), encoder),
        StreamOptions(
            _heartbeat(settings) if encoder is None else comment("keepalive"),
            settings.heartbeat_seconds,
            retry,
            ids=protocol.ids and request.args.get("ids") != "0",
        ),
        environ=request.environ,
        slot=slot,
        close=telling.close,
        stats=telling.stats,
        headers={"Location": f"/api/chat/stream/{message_id}", "X-Message-ID": message_id, **protocol.headers},
    )


def prepare_for_drain(slot: Slot, broker: BrokerClient) -> None:
    """In a drain only those are sent away who find the answer in another process, and not while it goes on here."""
    slot.comes_back = slot.comes_back and broker.outlives_us
    slot.leaves_early = not broker.answers_here


def leaver(broker: BrokerClient, user_id: str, message_id: str) -> Callable[[], None]:
    """What ends an answer that is for its readers only, once the last of them was seen to disconnect."""
    streams = services.parts().streams

    def leave() -> None:
        if not streams.draining:
            with contextlib.suppress(ChatError):  # If not now, when the grace is over.
                broker.cancel_if_no_readers(user_id, message_id)

    return leave


def tell(
    answer: Reply,
    message_id: str,
    *,
    kind: str,
    encoder: EventEncoder | None = None,
    resumed: bool = False,
    comes_back: bool = False,
    own: bool = False,
    leave: Callable[[], None] | None = None,
) -> ReplyStream:
    """`encoder`: of a protocol that cannot take output back; None for others. `leave`: see ReplyStream.

    `own`: it is read from a log of our own, whose errors' codes are ours.
    """
    settings = services.parts().settings
    relay = Relay(
        hooks.request_id(),
        tool_events=settings.relay_tool_events,
        expose_errors=settings.expose_upstream_errors,
        own=own,
        irrevocable=lambda: encoder is not None and encoder.sent > Sent.NOTHING,
    )
    fields = {"message_id": message_id, "kind": kind} | tracing.fields()
    return ReplyStream(
        answer, relay, fields, began=hooks.began(), resumed=resumed, comes_back=comes_back, kind=kind, leave=leave
    )


def _heartbeat(settings: Settings) -> bytes:
    return encode(events.keepalive()) if settings.heartbeat == "event" else comment("keepalive")


def _is_from_before(event: Event, milliseconds: float) -> bool:
    """By the id our own broker gives. Of another's ids nothing is known, and nothing counted."""
    said_at = event.id.partition("-")[0]
    return said_at.isdecimal() and int(said_at) < milliseconds
