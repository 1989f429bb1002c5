"""The streams a process holds open: counted, bounded, and brought to an end when the process is told to stop."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol, Self

from bff.errors import Draining, ServerFull, ServerRestarting, TooManyRequests, detached
from bff.http.waiting import Waiter

MANY_STREAMS: Final = "Too many of your answers are streaming."
SPREAD: Final = 0.4
"""The part of a drain over which those who will come back are sent away, so that they do not all come at once."""
LAST_WORDS_SECONDS: Final = 1.0


class SharedCounts(Protocol):
    """Counts a user's streams in all processes."""

    def acquire_stream(self, user_id: str) -> str:
        """The stream's name, for `release_stream`. Raises TooManyRequests."""

    def release_stream(self, user_id: str, stream: str) -> None: ...


class Slot:
    """One stream's place, from before it is opened until after it is closed."""

    def __init__(self, streams: "StreamLimiter", user_id: str, comes_back: bool) -> None:
        self._streams = streams
        self.user_id = user_id
        self.comes_back = comes_back
        self.leaves_early = True
        """Whether a drain may send it away before its end, where it comes back: what it follows goes on elsewhere."""
        self.shared = ""
        """Its name among the user's streams in all processes."""
        self.waiter: Waiter | None = None
        """Where the stream waits, once it does."""
        self._ending: Exception | None = None

    def attach(self, waiter: Waiter) -> None:
        self.waiter = waiter
        if self._ending is not None:
            waiter.cancel(self._ending)

    def cancel(self, reason: Exception) -> None:
        """Of a stream that is still being opened: as soon as it waits."""
        self._ending = detached(reason)
        if self.waiter is not None:
            self.waiter.cancel(reason)

    def abort(self) -> None:
        """Of a reader that does not read, so that its stream waits in a write and never learns of its end."""
        if self.waiter is not None:
            self.waiter.abort()

    def release(self) -> None:
        """Idempotent."""
        self._streams.release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """A stream that could not be opened gives its place back; one that could does so at its end."""
        if kind is not None:
            self.release()


class StreamLimiter:
    """At most `most` at once, `most_per_user` of them one user's."""

    def __init__(
        self,
        most: int,
        most_per_user: int,
        farewell: Callable[[], Exception] = ServerRestarting,
        shared: SharedCounts | None = None,
    ) -> None:
        self._most = most
        self._most_per_user = most_per_user
        self._farewell = farewell
        self._shared = shared
        self._lock = threading.Lock()
        self._open: set[Slot] = set()
        self._per_user: Counter[str] = Counter()
        self.draining = False

    def __len__(self) -> int:
        return len(self._open)

    def acquire(self, user_id: str, *, comes_back: bool = False) -> Slot:
        """`comes_back`: the reader goes on elsewhere by itself when its stream ends without a last event.

        Raises ServerRestarting, ServerFull, TooManyRequests.
        """
        with self._lock:
            if self.draining:
                raise ServerRestarting
            if len(self._open) >= self._most:
                raise ServerFull
            if self._per_user[user_id] >= self._most_per_user:
                raise TooManyRequests(MANY_STREAMS)
            self._per_user[user_id] += 1
            slot = Slot(self, user_id, comes_back)
            self._open.add(slot)
        if self._shared:
            with slot:
                slot.shared = self._shared.acquire_stream(user_id)
        return slot

    def release(self, slot: Slot) -> None:
        with self._lock:
            if slot not in self._open:
                return
            self._open.remove(slot)
            self._per_user[slot.user_id] -= 1
            if not self._per_user[slot.user_id]:
                del self._per_user[slot.user_id]
        if self._shared and slot.shared:
            self._shared.release_stream(slot.user_id, slot.shared)

    def drain(self, seconds: float) -> None:
        """Ends every stream within `seconds`; returns when the last one has ended, or when the time is up.

        Those who come back are sent away one after the other. The others may finish while there is time.
        """
        began = monotonic()
        with self._lock:
            self.draining = True
            leaving = [slot for slot in self._open if slot.comes_back and slot.leaves_early and slot.waiter is not None]
        random.shuffle(leaving)
        for number, slot in enumerate(leaving):
            _sleep_until(began + seconds * SPREAD * number / len(leaving))
            slot.cancel(Draining())
        last_words = began + max(0.0, seconds - LAST_WORDS_SECONDS)
        while self._open and monotonic() < last_words:
            _sleep_until(min(monotonic() + 0.05, last_words))
        for slot in list(self._open):
            slot.cancel(Draining() if slot.comes_back else self._farewell())
        while self._open and monotonic() < began + seconds:
            _sleep_until(monotonic() + 0.05)
        for slot in list(self._open):
            slot.abort()


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - monotonic()))
