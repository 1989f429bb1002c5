"""Reading one answer to its end: through breaks in the line, where the broker numbers its events."""

import random
from collections.abc import Callable, Generator, Iterator
from time import monotonic
from typing import Final, Protocol

from bff.errors import Away, ChatError, TooManyRequests, UpstreamFailure, UpstreamTimeout, UpstreamUnavailable
from bff.event_ids import ReadPosition
from bff.ops.hub import Watch
from bff.sse import Event
from bff.transport import EventSource

RECONNECTS: Final = 6
"""Attempts in a row that bring no event: with doubling pauses, some 10 s."""
RECONNECTS_MOST: Final = 100
"""For one answer: a broker that begins anew each time would go on for ever."""
RECONNECT_SECONDS: Final = 0.2
REOPEN_SECONDS: Final = 20.0

Reopen = Callable[[str, float, Watch | None], EventSource | None]
"""Opens the stream after an event id, until a moment (monotonic), waiting at the watch; None when nothing is left to read."""


class Answer(Protocol):
    """One answer on its way to one reader, who closes it."""

    reconnects: int

    def events(self, watch: Watch) -> Iterator[Event | None]:
        """To be iterated once. Raises an UpstreamFailure when it breaks for good, and whatever ends `watch`.

        Away: only for now. Whoever comes back later finds it.
        """

    def close(self) -> None: ...


class Followed:
    """An answer read straight from the broker's stream."""

    def __init__(self, reopen: Reopen, source: EventSource | None, after: str = "", *, numbered: bool) -> None:
        self._reopen = reopen
        self._source = source
        self._position = ReadPosition(after)
        self._numbered = numbered
        """Whether there is a place to go on from: after the last event, or before the first."""
        self._failures = 0
        self._away: Away | None = None
        """What the broker says itself: that it has lost nothing, and cannot tell just now."""
        self.reconnects = 0

    def events(self, watch: Watch) -> Iterator[Event | None]:
        while self._source is not None:
            problem = yield from self._read(self._source, watch)
            if self._numbered and (yield from self._reconnect(watch)):
                continue
            if problem := self._away or problem:
                raise problem
            return

    def _read(self, source: EventSource, watch: Watch) -> Generator[Event | None, None, UpstreamFailure | None]:
        """What cut the stream, None when it ended cleanly."""
        try:
            for event in source.events(watch):
                if event is not None:
                    if not self._position.is_new(event.id):
                        continue  # Nor is it progress: attempts that bring nothing new are counted.
                    self._failures = 0
                    self._numbered = self._position.known
                yield event
        except (UpstreamUnavailable, UpstreamTimeout) as error:
            return error
        finally:
            source.close()
        return None

    def _reconnect(self, watch: Watch) -> Generator[None, None, bool]:
        while self._failures < RECONNECTS and self.reconnects < RECONNECTS_MOST:
            yield from watch.pause(RECONNECT_SECONDS * 2**self._failures * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            self._failures += 1
            # While this blocks nothing is said to the browser, so it must not last longer than until the next heartbeat.
            until = min(monotonic() + REOPEN_SECONDS, max(watch.due, monotonic() + 1))
            try:
                self._source = self._reopen(self._position.after, until, watch)
            except (UpstreamFailure, TooManyRequests) as error:
                self._away = error if isinstance(error, Away) else None
                continue
            except ChatError:
                return False  # The broker answers, but has lost it.
            self._away = None
            self._position.reopened()
            self.reconnects += 1
            return self._source is not None
        return False

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
