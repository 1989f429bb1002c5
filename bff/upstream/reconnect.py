"""Reading one answer to its end, through breaks in the line, of a broker that numbers its events."""

import random
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Final, Protocol

from bff.errors import ChatError, TooManyRequests, UpstreamFailure, UpstreamTimeout, UpstreamUnavailable
from bff.http.event_ids import ReadPosition
from bff.http.sse import Event
from bff.http.waiting import Waiter
from bff.upstream.http import EventSource

MAX_RECONNECTS: Final = 6
"""Attempts in a row that bring no event: with doubling pauses, some 10 s."""
MAX_RECONNECTS_PER_REPLY: Final = 100
"""For one answer: a broker that begins anew each time would go on for ever."""
RECONNECT_SECONDS: Final = 0.2
REOPEN_SECONDS: Final = 20.0
"""For one attempt, at most."""
MIN_REOPEN_SECONDS: Final = 1.0

Reopen = Callable[[str, float, Waiter | None], EventSource | None]
"""Opens the stream after an event id, until a moment (monotonic), waiting at the watch; None when nothing is left to read."""


class Reply(Protocol):
    """One answer on its way to one reader, who closes it."""

    reconnects: int
    unfinished: bool
    """Whether following it failed although it may go on: a reader that comes back later finds the rest, or learns its end."""

    def events(self, waiter: Waiter) -> Iterator[Event | None]:
        """To be iterated once. Raises an UpstreamFailure when it breaks for good, and whatever ends `waiter`."""

    def close(self) -> None: ...


class ReconnectingReply:
    """An answer read straight from the broker's stream.

    Only the broker's log ends an answer: a broken connection, silence, or a stream that ends cleanly without a terminal
    event say nothing of it.
    """

    def __init__(self, reopen: Reopen, source: EventSource | None, after: str = "") -> None:
        self._reopen = reopen
        self._source = source
        self._position = ReadPosition(after)
        self._failures = 0
        self._cause: tuple[type[UpstreamFailure], str] | None = None
        """Kind and detail of what went wrong first since the last event. An exception would keep its frames alive."""
        self.reconnects = 0
        self.unfinished = False

    def events(self, waiter: Waiter) -> Iterator[Event | None]:
        while self._source is not None:
            yield from self._read(self._source, waiter)
            yield from self._reconnect(waiter)

    def _read(self, source: EventSource, waiter: Waiter) -> Iterator[Event | None]:
        try:
            for event in source.events(waiter):
                if event is not None:
                    if not self._position.is_new(event.id):
                        continue  # Nor is it progress: attempts that bring nothing new are counted.
                    self._failures = 0
                    self._cause = None
                yield event
        except (UpstreamUnavailable, UpstreamTimeout) as error:
            self._note(error)
        finally:
            source.close()

    def _reconnect(self, waiter: Waiter) -> Iterator[None]:
        """Opens the stream again; no source is left when the log has ended. Raises an UpstreamFailure when it gives up."""
        while self._failures < MAX_RECONNECTS and self.reconnects < MAX_RECONNECTS_PER_REPLY:
            yield from waiter.sleep(RECONNECT_SECONDS * 2**self._failures * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            self._failures += 1
            # While this blocks nothing is said to the browser, so it must not last longer than until the next heartbeat.
            deadline = min(monotonic() + REOPEN_SECONDS, max(waiter.wake_at, monotonic() + MIN_REOPEN_SECONDS))
            try:
                self._source = self._reopen(self._position.after, deadline, waiter)
            except (UpstreamFailure, TooManyRequests) as error:
                self._note(error)
                continue
            except ChatError as error:  # The broker answers, but has lost it.
                self._note(error)
                break
            self._position.reopened()
            self.reconnects += 1
            return
        self.unfinished = True
        self._raise_cause()
        raise UpstreamUnavailable(detail="the stream ended, and not the answer")

    def _note(self, error: ChatError) -> None:
        """The first one counts. What the broker refuses us is no refusal of the reader."""
        if self._cause is None:
            kind = type(error) if isinstance(error, UpstreamFailure) else UpstreamUnavailable
            self._cause = kind, error.detail or error.code

    def _raise_cause(self) -> None:
        if self._cause is not None:
            kind, detail = self._cause
            raise kind(detail=detail)

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
