"""One answer on its way to one browser: counted, and one line in the log, at its end."""

import logging
from collections.abc import Iterator
from time import monotonic, time
from typing import Any

from bff.errors import Away, ChatError, Drained
from bff.following import Answer
from bff.ops import metrics
from bff.ops.hub import Watch
from bff.ops.metrics import StreamEnd
from bff.ops.streams import Slot
from bff.relay import Relay
from bff.sse import Event
from bff.streaming import Tally

log = logging.getLogger("bff.requests")


class Telling:
    def __init__(
        self, answer: Answer, relay: Relay, slot: Slot, fields: dict[str, Any], *, began: float, resumed: bool
    ) -> None:
        """`began`: the moment (monotonic) of the request."""
        self._answer = answer
        self._relay = relay
        self._slot = slot
        self._fields = fields
        self._began = began
        self._resumed = resumed
        self._replayed = 0
        self.tally = Tally()
        metrics.STREAMS_OPEN.inc()
        metrics.STREAMS_STARTED.labels("resumed" if resumed else "said").inc()

    @property
    def problem(self) -> ChatError | None:
        return self._relay.problem

    def say(self, watch: Watch) -> Iterator[Event | None]:
        return self._relay(self._events(watch))

    def _events(self, watch: Watch) -> Iterator[Event | None]:
        try:
            said = self._answer.events(watch)
            yield from self._counted(said) if self._resumed else said
        except Away:
            if self._slot.comes_back:
                raise Drained from None  # Without an end: it goes on where it was once it can be told again.
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
        relay, tally, now = self._relay, self.tally, monotonic()
        ended = relay.ended or "aborted"
        first = None if relay.first_at is None else relay.first_at - self._began
        told = StreamEnd(
            ended, relay.events, tally.bytes, relay.dropped, tally.heartbeats, self._answer.reconnects, self._replayed
        )
        metrics.count_stream(told, first, now - self._began)
        times = {"first_event_ms": None if first is None else round(first * 1000), "ms": round((now - self._began) * 1000)}
        fields = self._fields | told._asdict() | times
        return fields | ({"detail": relay.problem.detail} if relay.problem is not None and relay.problem.detail else {})


def _is_from_before(event: Event, milliseconds: float) -> bool:
    """By the id our own broker gives. Of another's ids nothing is known, and nothing counted."""
    said_at = event.id.partition("-")[0]
    return said_at.isdecimal() and int(said_at) < milliseconds
