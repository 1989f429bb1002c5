import socket
import threading
from time import monotonic

import pytest

from bff.errors import ClientDisconnected, ServerRestarting
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
def waiter(pair):
    waiter = waiting.new_waiter(pair[0])
    yield waiter
    waiter.close()


def wait_until_ended(waiter: waiting.Waiter, seconds: float = 2.0) -> float:
    """Waits as a stream does, and gives the seconds until it was told to end."""
    began = monotonic()
    with pytest.raises(ClientDisconnected):
        while monotonic() < began + seconds:
            waiter.wait(deadline=began + seconds)
    return monotonic() - began


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def test_a_wait_ends_at_its_time(waiter):
    began = monotonic()

    waiter.wait(deadline=began + 0.05)

    assert 0.045 < monotonic() - began < 1


def test_a_wait_ends_when_the_stream_has_something_to_say(waiter):
    began = waiter.wake_at = monotonic()

    for pause in (0.02, 0.1, 0.04):
        waiter.wake_at = monotonic() + pause
        waiter.wait()
        assert monotonic() >= waiter.wake_at - 0.005

    assert monotonic() - began < 1


def test_a_wait_ends_when_the_upstream_is_readable(waiter):
    ours, theirs = socket.socketpair()

    with ours, theirs:
        threading.Timer(0.05, theirs.send, [b"x"]).start()
        waiter.wait(ours, deadline=monotonic() + 5)
        assert ours.recv(1) == b"x"

        began = monotonic()
        waiter.wait(ours, deadline=monotonic() + 0.05)
        assert monotonic() - began > 0.04, "nothing more had come"


def test_a_wait_follows_another_upstream(waiter):
    for _ in range(3):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.send(b"x")
            began = monotonic()
            waiter.wait(ours, deadline=began + 5)
            assert monotonic() - began < 1


def test_a_wait_ends_when_woken_from_another_thread(waiter):
    began = monotonic()
    threading.Timer(0.05, waiter.wake).start()

    waiter.wait(deadline=began + 5)

    assert monotonic() - began < 1


def test_a_wake_before_the_wait_is_not_lost(waiter):
    waiter.wake()
    began = monotonic()

    waiter.wait(deadline=began + 5)

    assert monotonic() - began < 1


def test_the_first_reason_to_end_counts(waiter):
    waiter.cancel(ServerRestarting())
    waiter.cancel(ClientDisconnected())

    for _ in range(2):
        with pytest.raises(ServerRestarting):
            waiter.wait()


def test_a_browser_that_reset_has_left(pair, waiter):
    threading.Timer(0.05, reset, [pair[1]]).start()

    assert wait_until_ended(waiter) < 1


def test_a_browser_that_closed_is_told_something_at_once_and_then_has_left(pair, waiter):
    ours, browser = pair
    waiter.wake_at = monotonic() + 60
    browser.close()

    waiter.wait(deadline=monotonic() + 2)
    assert waiter.wake_at <= monotonic(), "the stream should speak now"
    ours.send(b"heartbeat")
    waiter.wake_at = monotonic() + 60

    assert wait_until_ended(waiter) < 1


def test_a_browser_that_closed_has_left_where_nothing_can_be_said_to_it(pair):
    waiter = waiting.new_waiter(pair[0], allow_half_open=False)
    threading.Timer(0.05, pair[1].close).start()

    assert wait_until_ended(waiter, 15) < 10
    waiter.close()


def test_a_browser_that_half_closed_has_not_left(pair, waiter):
    ours, browser = pair
    waiter.wake_at = monotonic() + 60
    browser.shutdown(socket.SHUT_WR)

    waiter.wait(deadline=monotonic() + 2)
    ours.send(b"heartbeat")
    waiter.wake_at = monotonic() + 60
    deadline = monotonic() + 0.2
    while monotonic() < deadline:
        waiter.wait(deadline=deadline)

    assert browser.recv(100) == b"heartbeat"


def test_a_browser_that_sends_its_next_request_early_has_not_left(pair, waiter):
    pair[1].send(b"GET / HTTP/1.1\r\n\r\n")

    deadline = monotonic() + 0.1
    while monotonic() < deadline:
        waiter.wait(deadline=deadline)

    assert waiter.cancel_reason is None


def test_watching_costs_no_descriptor_in_the_end(pair):
    import os

    before = len(os.listdir("/proc/self/fd"))

    for _ in range(50):
        waiter = waiting.new_waiter(pair[0])
        waiter.wait(deadline=monotonic() + 0.001)
        waiter.close()

    assert len(os.listdir("/proc/self/fd")) == before


def made_sure(waiter: waiting.Waiter) -> int:
    """How often it said that it does not know yet."""
    return sum(1 for _ in waiter.confirm_connected())


def test_a_browser_that_is_there_is_there_at_once(waiter):
    waiter.wake()

    assert made_sure(waiter) == 0


def test_a_browser_that_left_a_moment_ago_is_found_out(pair):
    waiter = waiting.new_waiter(pair[0])
    pair[1].close()

    with pytest.raises(ClientDisconnected):
        for number, _ in enumerate(waiter.confirm_connected()):
            if not number:
                pair[0].sendall(b"anybody there?")

    waiter.close()


def test_a_browser_that_only_stopped_sending_is_there(pair):
    waiter = waiting.new_waiter(pair[0])
    pair[1].shutdown(socket.SHUT_WR)

    assert made_sure(waiter) > 0

    waiter.close()


def test_what_is_done_aside_gives_its_result_or_its_error():
    aside = waiting.ThreadExecutor()

    assert aside(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        aside(lambda: 1 / 0)
