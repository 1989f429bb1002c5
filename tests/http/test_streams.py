import threading
from time import monotonic

import pytest

from bff.errors import Draining, ServerFull, ServerRestarting, TooManyRequests
from bff.http import waiting
from bff.http.streams import Slot, StreamLimiter
from tests.live import in_parallel


class Stream:
    """A stream that waits in a thread until it is cancelled, and records when and why."""

    def __init__(self, limiter: StreamLimiter, user: str, *, resumable: bool, seconds: float = 30) -> None:
        self.slot: Slot = limiter.acquire(user, resumable=resumable)
        self.reason: Exception | None = None
        self.ended_at = 0.0
        self._seconds = seconds
        self._is_waiting = threading.Event()
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()
        assert self._is_waiting.wait(5)

    def _wait(self) -> None:
        self.slot.waiter = waiter = waiting.new_waiter()
        self._is_waiting.set()
        deadline = monotonic() + self._seconds
        try:
            while monotonic() < deadline:
                waiter.wait(deadline=deadline)
        except Exception as reason:
            self.reason = reason
        self.ended_at = monotonic()
        waiter.close()
        self.slot.release()

    def join(self) -> None:
        self._thread.join(5)
        assert not self._thread.is_alive()


# Slots


def test_streams_are_limited_in_total_and_per_user():
    limiter = StreamLimiter(3, 2)
    first, _ = limiter.acquire("ada"), limiter.acquire("ada")

    with pytest.raises(TooManyRequests):
        limiter.acquire("ada")
    limiter.acquire("bob")
    with pytest.raises(ServerFull):
        limiter.acquire("eve")

    first.release()
    limiter.acquire("ada")
    assert len(limiter) == 3


def test_a_slot_is_released_once():
    limiter = StreamLimiter(10, 1)
    slot = limiter.acquire("ada")
    for _ in range(3):
        slot.release()

    second = limiter.acquire("ada")
    slot.release()

    with pytest.raises(TooManyRequests):
        limiter.acquire("ada")
    second.release()
    assert len(limiter) == 0


def test_slots_are_counted_correctly_under_concurrency():
    limiter, counts = StreamLimiter(20, 20), []

    def acquire_and_release(number: int) -> int:
        rejected = 0
        for _ in range(300):
            try:
                slot = limiter.acquire(f"user-{number % 3}")
            except (ServerFull, TooManyRequests):
                rejected += 1
                continue
            counts.append(len(limiter))
            slot.release()
        return rejected

    in_parallel(40, acquire_and_release)

    assert max(counts) <= 20
    assert len(limiter) == 0
    for _ in range(20):
        limiter.acquire("ada")


# Draining


def test_a_drain_without_streams_ends_at_once_and_rejects_new_ones():
    limiter, start = StreamLimiter(10, 10), monotonic()

    limiter.drain(10)

    assert monotonic() - start < 4
    assert limiter.draining
    with pytest.raises(ServerRestarting):
        limiter.acquire("ada")


def test_a_drain_spreads_reconnects_and_lets_other_streams_finish():
    limiter = StreamLimiter(100, 100)
    resumable = [Stream(limiter, "ada", resumable=True) for _ in range(5)]
    finishing = Stream(limiter, "ada", resumable=False, seconds=0.7)
    unfinished = [Stream(limiter, "ada", resumable=False) for _ in range(2)]
    start = monotonic()

    limiter.drain(3)

    took = monotonic() - start
    for stream in [*resumable, finishing, *unfinished]:
        stream.join()
    assert 1.9 < took < 5
    assert all(type(stream.reason) is Draining for stream in resumable)
    moments = sorted(stream.ended_at - start for stream in resumable)
    assert all(moment >= 0.2 * number for number, moment in enumerate(moments)), "0.24 s apart"
    assert moments[-1] < 1.9, "before the final events"
    assert finishing.reason is None
    assert [type(stream.reason) for stream in unfinished] == [ServerRestarting] * 2
    assert all(1.9 < stream.ended_at - start < 3 for stream in unfinished)


def test_a_drain_may_end_with_another_error():
    limiter = StreamLimiter(10, 10, drain_error=Draining)
    stream = Stream(limiter, "ada", resumable=False)

    limiter.drain(0.5)

    stream.join()
    assert type(stream.reason) is Draining


def test_a_drain_ends_in_time_whatever_its_streams_do():
    limiter, start = StreamLimiter(10, 10), monotonic()
    limiter.acquire("ada", resumable=True)
    limiter.acquire("ada")

    limiter.drain(0.5)

    assert monotonic() - start < 4


def test_many_streams_are_ended_within_their_part_of_the_drain():
    limiter = StreamLimiter(1000, 1000)
    streams = [Stream(limiter, "ada", resumable=True) for _ in range(100)]
    start = monotonic()

    limiter.drain(2)

    for stream in streams:
        stream.join()
    moments = sorted(stream.ended_at - start for stream in streams)
    assert moments[-1] < 1.5
    assert moments[50] - moments[5] > 0.2, "not all at the same time"
