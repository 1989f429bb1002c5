"""Streams of a service in this process."""

import threading
from contextlib import closing
from itertools import islice
from pathlib import Path
from time import monotonic

import pytest

from bff.errors import ClientDisconnected, Draining, UpstreamTimeout, UpstreamUnavailable
from bff.http import waiting
from bff.http.sse import Event
from tests.live import DEADLINE
from tests.upstream.http.in_process_service import Service, data, forever


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_stream_that_ended_is_closed(waiter):
    service = Service(lambda _: [Event("word", "a", "1"), Event("", "b\nc"), None, Event("", "d")])

    with closing(service.open()) as source:
        events = [event for event in source.events(waiter) if event is not None]

    assert events == [Event("word", "a", "1"), Event("message", "b\nc", "1"), Event("message", "d", "1")]
    assert service.closed.is_set()
    assert len(service.streams) == 0


def test_a_stream_uses_no_file_descriptor(waiter):
    service = Service(forever)
    sources = [service.open()]
    before = descriptors()

    sources += [service.open() for _ in range(50)]
    texts = [data(islice(source.events(waiter), 2)) for source in sources]

    assert texts == [["first"]] * 51
    assert descriptors() < before + 50, "not exact: servers of other tests may still open and close some"
    for source in sources:
        source.close()


def test_the_reader_is_woken_at_its_wake_at(waiter):
    with closing(Service(forever).open()) as source:
        events = source.events(waiter)
        assert data(islice(events, 2)) == ["first"]

        start = monotonic()
        waiter.wake_at = start + 0.2
        while monotonic() < waiter.wake_at:
            assert next(events) is None

    assert monotonic() - start < DEADLINE / 2


def waits_once(waiters):
    """A service that waits between two events. Its waiter is added to `waiters`."""

    def produce(waiter):
        waiters.append(waiter)
        yield Event("", "first")
        yield None
        waiter.wait()
        yield Event("", "second")

    return produce


def test_wake_from_another_thread_wakes_the_stream(waiter):
    waiters = []

    with closing(Service(waits_once(waiters)).open()) as source:
        events = source.events(waiter)
        assert data(islice(events, 2)) == ["first"]
        threading.Timer(0.05, waiters[0].wake).start()

        assert data(events) == ["second"]


def test_wake_while_the_reader_is_busy_is_not_lost(waiter):
    waiters = []

    with closing(Service(waits_once(waiters)).open()) as source:
        events = source.events(waiter)
        assert data(islice(events, 2)) == ["first"]
        waiters[0].wake()

        assert data(events) == ["second"]


def test_the_services_heartbeats_are_received(waiter):
    with closing(Service(forever, heartbeat_seconds=0.05).open()) as source:
        chunks = [chunk for chunk in islice(source.chunks(waiter), 30) if chunk]

    assert b": beat\n\n" in chunks


def test_a_silent_stream_times_out(waiter):
    with closing(Service(forever).open(silence=0.2)) as source, pytest.raises(UpstreamTimeout):
        list(source.events(waiter))


@pytest.mark.parametrize(
    "reason", [ClientDisconnected(), Draining(), UpstreamTimeout()], ids=lambda reason: type(reason).__name__
)
def test_cancelling_the_reader_closes_the_stream_silently(waiter, reason, caplog):
    service = Service(forever)
    with closing(service.open()) as source:
        threading.Timer(0.05, waiter.cancel, [reason]).start()

        with pytest.raises(type(reason)):
            list(source.events(waiter))

    assert service.closed.is_set()
    assert caplog.records == []


def test_a_stream_that_the_service_drains_ends_cleanly(waiter):
    service = Service(forever)
    with closing(service.open()) as source:
        events = source.events(waiter)
        assert data(islice(events, 2)) == ["first"]

        threading.Thread(target=service.streams.drain, args=[0.1]).start()
        list(events)

    assert service.closed.is_set()


def test_an_aborted_stream_is_unavailable(waiter):
    def produce(waiter):
        yield Event("", "first")
        yield None
        waiter.abort()

    with closing(Service(produce).open()) as source:
        events = source.events(waiter)
        assert data(islice(events, 2)) == ["first"]
        with pytest.raises(UpstreamUnavailable):
            list(events)


@pytest.mark.parametrize("started", [True, False])
def test_closing_the_source_closes_the_stream(waiter, started):
    service = Service(forever)
    source = service.open()
    if started:
        next(source.events(waiter))

    source.close()

    assert service.closed.is_set()
    assert len(service.streams) == 0


def test_a_stream_can_be_read_with_several_waiters(waiter):
    with (
        closing(waiting.new_waiter()) as first,
        closing(Service(lambda _: [Event("", "a"), None, Event("", "b")]).open()) as source,
    ):
        assert next(event for event in source.events(first) if event is not None).data == "a"

        assert data(source.events(waiter)) == ["b"]


def test_closing_a_stream_runs_its_generators_cleanup(waiter):
    is_running = threading.Event()

    def produce(waiter):
        is_running.set()
        try:
            yield from forever(waiter)
        finally:
            is_running.clear()

    source = Service(produce).open()
    events = source.events(waiter)
    assert data(islice(events, 2)) == ["first"]
    assert is_running.is_set()

    source.close()

    assert not is_running.is_set()


def test_a_stream_that_never_waits_does_not_block_other_threads(waiter):
    def produce(_):
        while not stop.is_set():
            yield Event("", "a")
            yield None

    stop = threading.Event()
    with closing(Service(produce).open()) as source:
        threading.Timer(0.01, stop.set).start()

        assert data(source.events(waiter))
