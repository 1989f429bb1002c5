"""The open streams of a process: limits their number, and ends them when the process drains."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol, Self

from bff.errors import Draining, ServerFull, ServerRestarting, TooManyRequests, detached
from bff.http.waiting import Waiter

TOO_MANY_STREAMS: Final = "Too many of your answers are streaming."
SPREAD: Final = 0.4
"""The part of a drain during which resumable streams are ended, spread out so that they do not all reconnect at once."""
FINAL_EVENT_SECONDS: Final = 1.0
"""How long before the end of a drain the remaining streams get their final event."""


class SharedCounts(Protocol):
    """Counts of each user's streams over all processes."""

    def acquire_stream(self, user_id: str) -> str:
        """Returns a token for `release_stream`. Raises TooManyRequests."""

    def release_stream(self, user_id: str, token: str) -> None: ...


class Slot:
    """One stream's slot, from before it is opened until after it is closed."""

    def __init__(self, limiter: "StreamLimiter", user_id: str, resumable: bool) -> None:
        self._limiter = limiter
        self.user_id = user_id
        self.resumable = resumable
        self.may_end_early = True
        """Whether a drain may end it early if it is resumable: its reply continues in another process."""
        self.shared_token = ""
        """From `SharedCounts.acquire_stream`."""
        self.waiter: Waiter | None = None
        """Set once the stream runs."""
        self._cancel_reason: Exception | None = None

    def attach(self, waiter: Waiter) -> None:
        self.waiter = waiter
        if self._cancel_reason is not None:
            waiter.cancel(self._cancel_reason)

    def cancel(self, reason: Exception) -> None:
        """Ends the stream with `reason`; if it is still being opened, as soon as it runs."""
        self._cancel_reason = detached(reason)
        if self.waiter is not None:
            self.waiter.cancel(reason)

    def abort(self) -> None:
        """Closes the connection of a client that does not read: its stream is blocked in a write and cannot be cancelled."""
        if self.waiter is not None:
            self.waiter.abort()

    def release(self) -> None:
        """Idempotent."""
        self._limiter.release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Releases the slot of a stream that could not be opened; an open stream releases it at its end."""
        if kind is not None:
            self.release()


class StreamLimiter:
    """Limits the number of open streams, in total and per user."""

    def __init__(
        self,
        max_streams: int,
        max_per_user: int,
        drain_error: Callable[[], Exception] = ServerRestarting,
        shared: SharedCounts | None = None,
    ) -> None:
        """`drain_error`: makes the error that ends streams that are not resumable at the end of a drain."""
        self._max_streams = max_streams
        self._max_per_user = max_per_user
        self._drain_error = drain_error
        self._shared = shared
        self._lock = threading.Lock()
        self._open: set[Slot] = set()
        self._per_user: Counter[str] = Counter()
        self.draining = False

    def __len__(self) -> int:
        return len(self._open)

    def acquire(self, user_id: str, *, resumable: bool = False) -> Slot:
        """`resumable`: the client reconnects by itself when its stream ends without a terminal event.

        Raises ServerRestarting, ServerFull, TooManyRequests.
        """
        with self._lock:
            if self.draining:
                raise ServerRestarting
            if len(self._open) >= self._max_streams:
                raise ServerFull
            if self._per_user[user_id] >= self._max_per_user:
                raise TooManyRequests(TOO_MANY_STREAMS)
            self._per_user[user_id] += 1
            slot = Slot(self, user_id, resumable)
            self._open.add(slot)
        if self._shared:
            with slot:
                slot.shared_token = self._shared.acquire_stream(user_id)
        return slot

    def release(self, slot: Slot) -> None:
        with self._lock:
            if slot not in self._open:
                return
            self._open.remove(slot)
            self._per_user[slot.user_id] -= 1
            if not self._per_user[slot.user_id]:
                del self._per_user[slot.user_id]
        if self._shared and slot.shared_token:
            self._shared.release_stream(slot.user_id, slot.shared_token)

    def drain(self, seconds: float) -> None:
        """Ends all streams within `seconds`; returns when the last one has ended or the time is up.

        Resumable streams are ended one after the other. The others may finish while there is time.
        """
        start = monotonic()
        with self._lock:
            self.draining = True
            early = [slot for slot in self._open if slot.resumable and slot.may_end_early and slot.waiter is not None]
        random.shuffle(early)
        for number, slot in enumerate(early):
            _sleep_until(start + seconds * SPREAD * number / len(early))
            slot.cancel(Draining())
        final_event_at = start + max(0.0, seconds - FINAL_EVENT_SECONDS)
        while self._open and monotonic() < final_event_at:
            _sleep_until(min(monotonic() + 0.05, final_event_at))
        for slot in list(self._open):
            slot.cancel(Draining() if slot.resumable else self._drain_error())
        while self._open and monotonic() < start + seconds:
            _sleep_until(monotonic() + 0.05)
        for slot in list(self._open):
            slot.abort()


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - monotonic()))
