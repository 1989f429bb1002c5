import socket
import threading
from time import monotonic

import pytest

from bff.errors import ReaderLeft, ServerRestarting
from bff.http import waiting
from tests.wire_server import RESET


@pytest.fixture
def pair():
    """Our end of a browser's connection, and the browser's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        browser = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours, browser:
        yield ours, browser


@pytest.fixture
def watching(pair):
    watch = waiting.watch(pair[0])
    yield watch
    watch.close()


def wait_until_ended(watch: waiting.Watch, seconds: float = 2.0) -> float:
    """Waits as a stream does, and gives the seconds until it was told to end."""
    began = monotonic()
    with pytest.raises(ReaderLeft):
        while monotonic() < began + seconds:
            watch.wait(until=began + seconds)
    return monotonic() - began


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def test_a_wait_ends_at_its_time(watching):
    began = monotonic()

    watching.wait(until=began + 0.05)

    assert 0.045 < monotonic() - began < 1


def test_a_wait_ends_when_the_stream_has_something_to_say(watching):
    began = watching.due = monotonic()

    for pause in (0.02, 0.1, 0.04):
        watching.due = monotonic() + pause
        watching.wait()
        assert monotonic() >= watching.due - 0.005

    assert monotonic() - began < 1


def test_a_wait_ends_when_the_upstream_is_readable(watching):
    ours, theirs = socket.socketpair()

    with ours, theirs:
        threading.Timer(0.05, theirs.send, [b"x"]).start()
        watching.wait(ours, until=monotonic() + 5)
        assert ours.recv(1) == b"x"

        began = monotonic()
        watching.wait(ours, until=monotonic() + 0.05)
        assert monotonic() - began > 0.04, "nothing more had come"


def test_a_wait_follows_another_upstream(watching):
    for _ in range(3):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.send(b"x")
            began = monotonic()
            watching.wait(ours, until=began + 5)
            assert monotonic() - began < 1


def test_a_wait_ends_when_woken_from_another_thread(watching):
    began = monotonic()
    threading.Timer(0.05, watching.wake).start()

    watching.wait(until=began + 5)

    assert monotonic() - began < 1


def test_a_wake_before_the_wait_is_not_lost(watching):
    watching.wake()
    began = monotonic()

    watching.wait(until=began + 5)

    assert monotonic() - began < 1


def test_the_first_reason_to_end_counts(watching):
    watching.end(ServerRestarting())
    watching.end(ReaderLeft())

    for _ in range(2):
        with pytest.raises(ServerRestarting):
            watching.wait()


def test_a_browser_that_reset_has_left(pair, watching):
    threading.Timer(0.05, reset, [pair[1]]).start()

    assert wait_until_ended(watching) < 1


def test_a_browser_that_closed_is_told_something_at_once_and_then_has_left(pair, watching):
    ours, browser = pair
    watching.due = monotonic() + 60
    browser.close()

    watching.wait(until=monotonic() + 2)
    assert watching.due <= monotonic(), "the stream should speak now"
    ours.send(b"heartbeat")
    watching.due = monotonic() + 60

    assert wait_until_ended(watching) < 1


def test_a_browser_that_closed_has_left_where_nothing_can_be_said_to_it(pair):
    watch = waiting.watch(pair[0], half_open=False)
    threading.Timer(0.05, pair[1].close).start()

    assert wait_until_ended(watch, 15) < 10
    watch.close()


def test_a_browser_that_half_closed_has_not_left(pair, watching):
    ours, browser = pair
    watching.due = monotonic() + 60
    browser.shutdown(socket.SHUT_WR)

    watching.wait(until=monotonic() + 2)
    ours.send(b"heartbeat")
    watching.due = monotonic() + 60
    until = monotonic() + 0.2
    while monotonic() < until:
        watching.wait(until=until)

    assert browser.recv(100) == b"heartbeat"


def test_a_browser_that_sends_its_next_request_early_has_not_left(pair, watching):
    pair[1].send(b"GET / HTTP/1.1\r\n\r\n")

    until = monotonic() + 0.1
    while monotonic() < until:
        watching.wait(until=until)

    assert watching.ending is None


def test_watching_costs_no_descriptor_in_the_end(pair):
    import os

    before = len(os.listdir("/proc/self/fd"))

    for _ in range(50):
        watch = waiting.watch(pair[0])
        watch.wait(until=monotonic() + 0.001)
        watch.close()

    assert len(os.listdir("/proc/self/fd")) == before


def made_sure(watch: waiting.Watch) -> int:
    """How often it said that it does not know yet."""
    return sum(1 for _ in watch.make_sure())


def test_a_browser_that_is_there_is_there_at_once(watching):
    watching.wake()

    assert made_sure(watching) == 0


def test_a_browser_that_left_a_moment_ago_is_found_out(pair):
    watch = waiting.watch(pair[0])
    pair[1].close()

    with pytest.raises(ReaderLeft):
        for number, _ in enumerate(watch.make_sure()):
            if not number:
                pair[0].sendall(b"anybody there?")

    watch.close()


def test_a_browser_that_only_stopped_sending_is_there(pair):
    watch = waiting.watch(pair[0])
    pair[1].shutdown(socket.SHUT_WR)

    assert made_sure(watch) > 0

    watch.close()


def test_what_is_done_aside_gives_its_result_or_its_error():
    aside = waiting.Aside()

    assert aside(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        aside(lambda: 1 / 0)
