"""Reads a reply to its end, reconnecting as needed, from a broker that numbers its events."""

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
"""Consecutive attempts without a new event; with doubling pauses, some 10 s."""
MAX_RECONNECTS_PER_REPLY: Final = 100
"""A broker that sends something new each time and then disconnects would keep a reply open forever."""
RECONNECT_SECONDS: Final = 0.2
REOPEN_SECONDS: Final = 20.0
"""Maximum timeout of one attempt."""
MIN_REOPEN_SECONDS: Final = 1.0

Reopen = Callable[[str, float, Waiter | None], EventSource | None]
"""`reopen(after, deadline, waiter)` opens the stream after an event id; None when nothing is left to read."""


class Reply(Protocol):
    """A reply being read by one reader, who closes it."""

    reconnects: int
    unfinished: bool
    """Whether following failed while the reply may still run: a client that resumes later gets the rest, or its end."""

    def events(self, waiter: Waiter) -> Iterator[Event | None]:
        """Can be iterated once. Raises an UpstreamFailure if it fails for good, and the reason if `waiter` is cancelled."""

    def close(self) -> None: ...


class ReconnectingReply:
    """A reply read from the broker's stream.

    Only a terminal event ends a reply. A lost connection, silence, or a stream that ends without a terminal event does not.
    """

    def __init__(self, reopen: Reopen, source: EventSource | None, after: str = "") -> None:
        self._reopen = reopen
        self._source = source
        self._position = ReadPosition(after)
        self._failures = 0
        self._cause: tuple[type[UpstreamFailure], str] | None = None
        """Class and detail of the first failure since the last event. A stored exception would keep its frames alive."""
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
                        continue  # Not new, so the attempt still counts as failed.
                    self._failures = 0
                    self._cause = None
                yield event
        except (UpstreamUnavailable, UpstreamTimeout) as error:
            self._record_cause(error)
        finally:
            source.close()

    def _reconnect(self, waiter: Waiter) -> Iterator[None]:
        """Reopens the stream; `_source` is None if the log has ended. Raises an UpstreamFailure when it gives up."""
        while self._failures < MAX_RECONNECTS and self.reconnects < MAX_RECONNECTS_PER_REPLY:
            yield from waiter.sleep(RECONNECT_SECONDS * 2**self._failures * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            self._failures += 1
            # This blocks and no heartbeat can be sent meanwhile, so it must end before the next one is due.
            deadline = min(monotonic() + REOPEN_SECONDS, max(waiter.wake_at, monotonic() + MIN_REOPEN_SECONDS))
            try:
                self._source = self._reopen(self._position.after, deadline, waiter)
            except (UpstreamFailure, TooManyRequests) as error:
                self._record_cause(error)
                continue
            except ChatError as error:  # The broker responds, but has lost the reply.
                self._record_cause(error)
                break
            self._position.reopened()
            self.reconnects += 1
            return
        self.unfinished = True
        self._raise_cause()
        raise UpstreamUnavailable(detail="the stream ended without a terminal event")

    def _record_cause(self, error: ChatError) -> None:
        """Only the first one counts. An error of our request is not the client's, so it becomes UpstreamUnavailable."""
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
