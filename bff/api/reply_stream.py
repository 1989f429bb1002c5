"""A reply as an HTTP response to one client: its stream, its metrics, and the log line at its end."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from time import monotonic, time
from typing import Any, Final

from flask import Response, request

from bff.api import request_state, services
from bff.api.adapters.base import ClientProtocol, EventEncoder, Sent, TracksOutput, translate
from bff.api.adapters.numbered import number
from bff.config.settings import Settings
from bff.errors import ChatError, Draining, Interrupted, UpstreamFailure
from bff.http import tracing
from bff.http.responses import EventFactory, EventStream, StreamOptions, StreamStats
from bff.http.sse import Event, comment, encode
from bff.http.streams import Slot
from bff.http.waiting import Waiter
from bff.ops import metrics
from bff.ops.metrics import StreamEnd
from bff.upstream import events
from bff.upstream.broker_client import BrokerClient
from bff.upstream.reconnect import Reply
from bff.upstream.relay import Relay

log = logging.getLogger("bff.requests")

_MAY_CONTINUE: Final = frozenset({"", "aborted", Interrupted.code})
"""Ends of a stream after which its reply may still be produced. Some protocols end with `interrupted` when it restarts."""


class ReplyStream:
    def __init__(
        self,
        reply: Reply,
        relay: Relay,
        fields: dict[str, Any],
        *,
        started_at: float,
        resumed: bool,
        resumable: bool,
        kind: str,
        on_reader_gone: Callable[[], None] | None,
    ) -> None:
        """`started_at`: the moment (monotonic) of the request. `fields`: for the log line. `kind`: chat, conversation or v1.

        `resumable`: the client reconnects after an end without a terminal event. `on_reader_gone`: called at the end if the
        reply may continue without this client.
        """
        self._reply = reply
        self._relay = relay
        self._fields = fields
        self._started_at = started_at
        self._resumed = resumed
        self._resumable = resumable
        self._kind = kind
        self._on_reader_gone = on_reader_gone
        self._replayed = 0
        self.stats = StreamStats()
        metrics.STREAMS_OPEN.labels(kind).inc()
        metrics.STREAMS_STARTED.labels("resumed" if resumed else "said", kind).inc()

    @property
    def error(self) -> ChatError | None:
        return self._relay.error

    def events(self, waiter: Waiter) -> Iterator[Event | None]:
        """To be iterated once. Raises ClientDisconnected."""
        return self._relay(self._reply_events(waiter))

    def _reply_events(self, waiter: Waiter) -> Iterator[Event | None]:
        try:
            events = self._reply.events(waiter)
            yield from self._count_replayed(events) if self._resumed else events
        except UpstreamFailure:
            if self._resumable and self._reply.unfinished:
                # The reply may end differently for other readers, and for this one once it has reconnected.
                raise Draining from None
            raise

    def _count_replayed(self, events: Iterator[Event | None]) -> Iterator[Event | None]:
        """Counts the events that are older than this connection, up to the first one that is not."""
        resumed_at = time() * 1000
        for event in events:
            is_old = event is not None and _is_older(event, resumed_at)
            self._replayed += is_old
            yield event
            if event is not None and not is_old:
                break
        yield from events

    def close(self) -> None:
        log.info("the stream of %s ended", self._fields["message_id"], extra=self.finish())

    def finish(self) -> dict[str, Any]:
        """To be called once. Updates the metrics and returns the fields of the log line."""
        self._reply.close()
        relay, stats = self._relay, self.stats
        if self._on_reader_gone is not None and relay.ended in _MAY_CONTINUE:
            self._on_reader_gone()
        end = StreamEnd(
            self._kind,
            relay.ended or "aborted",
            relay.events,
            stats.bytes,
            relay.dropped,
            stats.heartbeats,
            self._reply.reconnects,
            self._replayed,
        )
        seconds = monotonic() - self._started_at
        first_event = None if relay.first_at is None else relay.first_at - self._started_at
        metrics.count_stream(end, first_event, seconds)
        times = {"first_event_ms": None if first_event is None else round(first_event * 1000), "ms": round(seconds * 1000)}
        detail = {"detail": self.error.detail} if self.error is not None and self.error.detail else {}
        return self._fields | end._asdict() | times | detail


def stream_response(
    reply: Reply,
    message_id: str,
    slot: Slot,
    protocol: ClientProtocol,
    encoder: EventEncoder | None,
    retry: int | None = None,
    kind: str = "chat",
    *,
    broker: BrokerClient,
    first: int | None = None,
    headers: Mapping[str, str] | None = None,
    on_reader_gone: Callable[[], None] | None = None,
) -> Response:
    """`first`: for a client that counts events, the number of the first one to send; None for one that resumes by our ids.

    `encoder`: None for our own protocol. `retry`: milliseconds, for a resumed stream. `broker`: the one of `reply`.

    `on_reader_gone`: see ReplyStream.
    """
    settings = services.parts().settings
    stream = new_reply_stream(
        reply,
        message_id,
        kind=kind,
        encoder=encoder,
        resumed=retry is not None,
        resumable=slot.resumable,
        on_reader_gone=on_reader_gone,
    )
    prepare_for_drain(slot, broker)
    run_header = {protocol.run_header: message_id} if protocol.run_header else {}
    return EventStream(
        _encoded(stream, encoder, first),
        StreamOptions(
            _heartbeat(settings) if encoder is None else comment("keepalive"),
            settings.heartbeat_seconds,
            retry,
            ids=protocol.ids and request.args.get("ids") != "0",
            id_first=first is not None,  # As TanStack AI takes an id for that of the data after it.
        ),
        environ=request.environ,
        slot=slot,
        close=stream.close,
        stats=stream.stats,
        headers={**message_headers(message_id, settings.on_disconnect), **protocol.headers, **run_header, **(headers or {})},
    )


def _encoded(stream: ReplyStream, encoder: EventEncoder | None, first: int | None) -> EventFactory:
    if encoder is None:
        return stream.events
    if first is None:
        return lambda waiter: translate(stream.events(waiter), encoder)
    return lambda waiter: number(stream.events(waiter), encoder, first)


def message_headers(message_id: str, on_disconnect: str) -> dict[str, str]:
    """`on_disconnect`: tells clients whether they may close the stream for a while, such as in a hidden tab."""
    location = services.url_for("chat.resume", message_id=message_id)
    return {"Location": location, "X-Message-ID": message_id, "X-On-Disconnect": on_disconnect}


def prepare_for_drain(slot: Slot, broker: BrokerClient) -> None:
    """A drain ends a stream early only if the client can resume it in another process, and its reply is not produced here."""
    slot.resumable = slot.resumable and broker.survives_restart
    slot.may_end_early = not broker.runs_in_process


def disconnect_callback(broker: BrokerClient, user_id: str, message_id: str) -> Callable[[], None]:
    """For `on_reader_gone`: cancels a reply with `on_disconnect: cancel` if it has no other readers."""
    streams = services.parts().streams

    def cancel_if_no_readers() -> None:
        if not streams.draining:
            with contextlib.suppress(ChatError):  # The broker does it itself after a grace period.
                broker.cancel_if_no_readers(user_id, message_id)

    return cancel_if_no_readers


def new_reply_stream(
    reply: Reply,
    message_id: str,
    *,
    kind: str,
    encoder: TracksOutput | None = None,
    resumed: bool = False,
    resumable: bool = False,
    on_reader_gone: Callable[[], None] | None = None,
) -> ReplyStream:
    """For a reply of our own broker. `encoder`: the one of a protocol that cannot take back output.

    `resumable`, `on_reader_gone`: see ReplyStream.
    """
    return ReplyStream(
        reply,
        new_relay(encoder),
        {"message_id": message_id, "kind": kind} | tracing.fields(),
        started_at=request_state.started_at(),
        resumed=resumed,
        resumable=resumable,
        kind=kind,
        on_reader_gone=on_reader_gone,
    )


def new_relay(encoder: TracksOutput | None) -> Relay:
    """See new_reply_stream."""
    settings = services.parts().settings
    return Relay(
        request_state.request_id(),
        tool_events=settings.relay_tool_events,
        reasoning=settings.relay_reasoning,
        expose_errors=settings.expose_upstream_errors,
        own=True,
        irrevocable=lambda: encoder is not None and encoder.sent > Sent.NOTHING,
    )


def _heartbeat(settings: Settings) -> bytes:
    return encode(events.keepalive()) if settings.heartbeat == "event" else comment("keepalive")


def _is_older(event: Event, milliseconds: float) -> bool:
    """By the time in the event ids of our own broker; False for the ids of others."""
    created_at = event.id.partition("-")[0]
    return created_at.isdecimal() and int(created_at) < milliseconds
