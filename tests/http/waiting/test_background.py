import threading
from time import monotonic

import pytest

from bff.errors import ClientDisconnected, UpstreamError
from bff.http import tracing
from bff.http.waiting.background import in_background
from tests.live import DEADLINE, eventually


def must_not_discard(_):
    raise AssertionError("the result was discarded")


def run(steps):
    """Returns the result, and how often the generator yielded."""
    count = 0
    while True:
        try:
            next(steps)
            count += 1
        except StopIteration as end:
            return end.value, count


def test_the_result_is_returned(waiter):
    result, _ = run(in_background(lambda _: "result", waiter, must_not_discard))

    assert result == "result"


def test_the_call_runs_in_the_callers_trace(waiter):
    trace = tracing.begin({"X-Request-ID": "find-me"})

    headers, _ = run(in_background(lambda _: tracing.headers(), waiter, must_not_discard))

    assert headers["X-Request-ID"] == "find-me"
    assert trace.trace_id in headers["traceparent"]


def test_the_error_is_raised(waiter):
    def fail(_):
        raise UpstreamError

    with pytest.raises(UpstreamError):
        run(in_background(fail, waiter, must_not_discard))


def test_the_caller_is_woken_at_its_wake_at(waiter):
    finish = threading.Event()
    steps = in_background(lambda _: finish.wait(DEADLINE), waiter, must_not_discard)

    for _ in range(5):
        waiter.wake_at = monotonic() + 0.02
        while monotonic() < waiter.wake_at:
            assert next(steps) is None
    finish.set()

    assert run(steps)[0] is True


@pytest.mark.parametrize("ending", ["closed", "cancelled"])
def test_the_call_is_cancelled_when_its_caller_ends(ending, waiter):
    started, cancelled = threading.Event(), threading.Event()

    def work(inner):
        started.set()
        try:
            while True:
                inner.wait()
        except ClientDisconnected:
            cancelled.set()
            raise

    steps = in_background(work, waiter, must_not_discard)
    next(steps)
    assert started.wait(DEADLINE)
    if ending == "closed":
        steps.close()
    else:
        waiter.cancel(ClientDisconnected())
        with pytest.raises(ClientDisconnected):
            run(steps)

    assert cancelled.wait(DEADLINE)


def test_a_late_result_is_discarded(waiter):
    release, discarded = threading.Event(), threading.Event()

    def work(_):
        release.wait(DEADLINE)
        return "late"

    steps = in_background(work, waiter, lambda result: discarded.set() if result == "late" else None)
    next(steps)
    steps.close()
    assert not discarded.is_set()
    release.set()

    assert discarded.wait(DEADLINE)


def test_a_result_that_was_not_fetched_is_discarded(waiter):
    release, discarded = threading.Event(), threading.Event()
    steps = in_background(lambda _: release.wait(DEADLINE), waiter, lambda _: discarded.set())

    next(steps)
    release.set()
    assert eventually(lambda: "background" not in {thread.name for thread in threading.enumerate()}, DEADLINE)
    steps.close()

    assert discarded.wait(DEADLINE)
