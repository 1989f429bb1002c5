import threading
from time import monotonic

import pytest

from bff.errors import Draining, ServerFull, ServerRestarting, TooManyRequests
from bff.http import waiting
from bff.http.streams import Slot, StreamLimiter
from tests.live import in_parallel


class Stream:
    """One that waits in a thread until it is told to end, and tells when and why."""

    def __init__(self, open_streams: StreamLimiter, user: str, *, comes_back: bool, seconds: float = 30) -> None:
        self.slot: Slot = open_streams.enter(user, comes_back=comes_back)
        self.reason: Exception | None = None
        self.ended_at = 0.0
        self._seconds = seconds
        self._waits = threading.Event()
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()
        assert self._waits.wait(5)

    def _wait(self) -> None:
        self.slot.waiter = waiter = waiting.new_waiter()
        self._waits.set()
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


# Places


def test_streams_are_bounded_for_all_and_for_each():
    open_streams = StreamLimiter(3, 2)
    first, _ = open_streams.enter("ada"), open_streams.enter("ada")

    with pytest.raises(TooManyRequests):
        open_streams.enter("ada")
    open_streams.enter("bob")
    with pytest.raises(ServerFull):
        open_streams.enter("eve")

    first.release()
    open_streams.enter("ada")
    assert len(open_streams) == 3


def test_a_place_is_given_back_once():
    open_streams = StreamLimiter(10, 1)
    slot = open_streams.enter("ada")
    for _ in range(3):
        slot.release()

    again = open_streams.enter("ada")
    slot.release()

    with pytest.raises(TooManyRequests):
        open_streams.enter("ada")
    again.release()
    assert len(open_streams) == 0


def test_no_place_is_given_twice_or_lost_when_many_come_at_once():
    open_streams, most = StreamLimiter(20, 20), []

    def come_and_go(number: int) -> int:
        refused = 0
        for _ in range(300):
            try:
                slot = open_streams.enter(f"user-{number % 3}")
            except (ServerFull, TooManyRequests):
                refused += 1
                continue
            most.append(len(open_streams))
            slot.release()
        return refused

    in_parallel(40, come_and_go)

    assert max(most) <= 20
    assert len(open_streams) == 0
    for _ in range(20):
        open_streams.enter("ada")


# The end


def test_a_drain_of_nothing_is_over_at_once_and_lets_nobody_in():
    open_streams, began = StreamLimiter(10, 10), monotonic()

    open_streams.drain(10)

    assert monotonic() - began < 1
    assert open_streams.draining
    with pytest.raises(ServerRestarting):
        open_streams.enter("ada")


def test_a_drain_sends_away_one_after_the_other_lets_others_finish_and_says_farewell_at_the_end():
    open_streams = StreamLimiter(100, 100)
    coming_back = [Stream(open_streams, "ada", comes_back=True) for _ in range(5)]
    finishing = Stream(open_streams, "ada", comes_back=False, seconds=0.7)
    patient = [Stream(open_streams, "ada", comes_back=False) for _ in range(2)]
    began = monotonic()

    open_streams.drain(3)

    took = monotonic() - began
    for stream in [*coming_back, finishing, *patient]:
        stream.join()
    assert 1.9 < took < 3.2
    assert all(type(stream.reason) is Draining for stream in coming_back)
    moments = sorted(stream.ended_at - began for stream in coming_back)
    assert all(moment >= 0.2 * number for number, moment in enumerate(moments)), "0.24 s apart"
    assert moments[-1] < 1.9, "before the farewell"
    assert finishing.reason is None
    assert [type(stream.reason) for stream in patient] == [ServerRestarting] * 2
    assert all(1.9 < stream.ended_at - began < 3 for stream in patient)


def test_a_drain_may_say_another_farewell():
    open_streams = StreamLimiter(10, 10, farewell=Draining)
    stream = Stream(open_streams, "ada", comes_back=False)

    open_streams.drain(0.5)

    stream.join()
    assert type(stream.reason) is Draining


def test_a_drain_ends_in_time_whatever_its_streams_do():
    open_streams, began = StreamLimiter(10, 10), monotonic()
    open_streams.enter("ada", comes_back=True)
    open_streams.enter("ada")

    open_streams.drain(0.5)

    assert monotonic() - began < 1


def test_many_are_sent_away_inside_their_part_of_the_drain():
    open_streams = StreamLimiter(1000, 1000)
    leaving = [Stream(open_streams, "ada", comes_back=True) for _ in range(100)]
    began = monotonic()

    open_streams.drain(2)

    for stream in leaving:
        stream.join()
    moments = sorted(stream.ended_at - began for stream in leaving)
    assert moments[-1] < 1.5
    assert moments[50] - moments[5] > 0.2, "not all at once"
