import threading
from time import monotonic

import pytest

from bff.errors import ClientDisconnected, UpstreamError
from bff.http import tracing
from bff.http.waiting.background import in_background
from tests.live import DEADLINE, eventually


def keep(_):
    raise AssertionError("nobody's to throw away")


def finished(waiting):
    """What it returns in the end, and how often it said that it waits."""
    count = 0
    while True:
        try:
            next(waiting)
            count += 1
        except StopIteration as end:
            return end.value, count


def test_its_result_is_given(waiter):
    result, _ = finished(in_background(lambda _: "result", waiter, keep))

    assert result == "result"


def test_what_is_asked_there_belongs_to_the_same_trace(waiter):
    begun = tracing.begin({"X-Request-ID": "find-me"})

    asked_with, _ = finished(in_background(lambda _: tracing.headers(), waiter, keep))

    assert asked_with["X-Request-ID"] == "find-me"
    assert begun.trace_id in asked_with["traceparent"]


def test_its_error_is_raised(waiter):
    def fail(_):
        raise UpstreamError

    with pytest.raises(UpstreamError):
        finished(in_background(fail, waiter, keep))


def test_the_one_who_waits_is_woken_for_its_own_words_meanwhile(waiter):
    enough = threading.Event()
    waiting = in_background(lambda _: enough.wait(DEADLINE), waiter, keep)

    for _ in range(5):
        waiter.wake_at = monotonic() + 0.02
        while monotonic() < waiter.wake_at:
            assert next(waiting) is None
    enough.set()

    assert finished(waiting)[0] is True


@pytest.mark.parametrize("how", ["closed", "ended"])
def test_when_nobody_waits_any_more_it_is_told(how, waiter):
    began, told = threading.Event(), threading.Event()

    def work(place):
        began.set()
        try:
            while True:
                place.wait()
        except ClientDisconnected:
            told.set()
            raise

    waiting = in_background(work, waiter, keep)
    next(waiting)
    assert began.wait(DEADLINE)
    if how == "closed":
        waiting.close()
    else:
        waiter.cancel(ClientDisconnected())
        with pytest.raises(ClientDisconnected):
            finished(waiting)

    assert told.wait(DEADLINE)


def test_a_result_that_comes_too_late_is_thrown_away(waiter):
    go_on, thrown = threading.Event(), threading.Event()

    def work(_):
        go_on.wait(DEADLINE)
        return "late"

    waiting = in_background(work, waiter, lambda result: thrown.set() if result == "late" else None)
    next(waiting)
    waiting.close()
    assert not thrown.is_set()
    go_on.set()

    assert thrown.wait(DEADLINE)


def test_a_result_that_nobody_fetched_is_thrown_away(waiter):
    go_on, thrown = threading.Event(), threading.Event()
    waiting = in_background(lambda _: go_on.wait(DEADLINE), waiter, lambda _: thrown.set())

    next(waiting)
    go_on.set()
    assert eventually(lambda: "background" not in {thread.name for thread in threading.enumerate()}, DEADLINE)
    waiting.close()

    assert thrown.wait(DEADLINE)
