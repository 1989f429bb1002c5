import os
import socket
import threading
from time import monotonic

import pytest

from bff.errors import ClientDisconnected, ServerRestarting
from bff.http import waiting
from tests.wire_server import RESET


@pytest.fixture
def pair():
    """The server's end of a connection, and the client's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server_side, _ = listener.accept()
    with server_side, client:
        yield server_side, client


@pytest.fixture
def waiter(pair):
    waiter = waiting.new_waiter(pair[0])
    yield waiter
    waiter.close()


def seconds_until_disconnect(waiter: waiting.Waiter, seconds: float = 2.0) -> float:
    """Waits like a stream does."""
    start = monotonic()
    with pytest.raises(ClientDisconnected):
        while monotonic() < start + seconds:
            waiter.wait(deadline=start + seconds)
    return monotonic() - start


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def test_wait_returns_at_its_deadline(waiter):
    start = monotonic()

    waiter.wait(deadline=start + 0.05)

    assert 0.045 < monotonic() - start < 4


def test_wait_returns_at_wake_at(waiter):
    start = waiter.wake_at = monotonic()

    for pause in (0.02, 0.1, 0.04):
        waiter.wake_at = monotonic() + pause
        waiter.wait()
        assert monotonic() >= waiter.wake_at - 0.005

    assert monotonic() - start < 4


def test_wait_returns_when_the_upstream_is_readable(waiter):
    upstream, peer = socket.socketpair()

    with upstream, peer:
        threading.Timer(0.05, peer.send, [b"x"]).start()
        waiter.wait(upstream, deadline=monotonic() + 5)
        assert upstream.recv(1) == b"x"

        start = monotonic()
        waiter.wait(upstream, deadline=monotonic() + 0.05)
        assert monotonic() - start > 0.04, "nothing else had arrived"


def test_wait_follows_another_upstream(waiter):
    for _ in range(3):
        upstream, peer = socket.socketpair()
        with upstream, peer:
            peer.send(b"x")
            start = monotonic()
            waiter.wait(upstream, deadline=start + 5)
            assert monotonic() - start < 4


def test_wake_from_another_thread_ends_a_wait(waiter):
    start = monotonic()
    threading.Timer(0.05, waiter.wake).start()

    waiter.wait(deadline=start + 5)

    assert monotonic() - start < 4


def test_wake_before_a_wait_is_not_lost(waiter):
    waiter.wake()
    start = monotonic()

    waiter.wait(deadline=start + 5)

    assert monotonic() - start < 4


def test_the_first_cancel_reason_counts(waiter):
    waiter.cancel(ServerRestarting())
    waiter.cancel(ClientDisconnected())

    for _ in range(2):
        with pytest.raises(ServerRestarting):
            waiter.wait()


def test_a_reset_is_a_disconnect(pair, waiter):
    threading.Timer(0.05, reset, [pair[1]]).start()

    assert seconds_until_disconnect(waiter) < 1


def test_a_closed_client_is_noticed_by_writing_at_once(pair, waiter):
    server_side, client = pair
    waiter.wake_at = monotonic() + 60
    client.close()

    waiter.wait(deadline=monotonic() + 2)
    assert waiter.wake_at <= monotonic(), "the stream should write now"
    server_side.send(b"heartbeat")
    waiter.wake_at = monotonic() + 60

    assert seconds_until_disconnect(waiter) < 1


def test_a_closed_client_is_noticed_without_writing_if_half_open_is_not_allowed(pair):
    waiter = waiting.new_waiter(pair[0], allow_half_open=False)
    threading.Timer(0.05, pair[1].close).start()

    assert seconds_until_disconnect(waiter, 15) < 10
    waiter.close()


def test_a_half_closed_client_is_not_disconnected(pair, waiter):
    server_side, client = pair
    waiter.wake_at = monotonic() + 60
    client.shutdown(socket.SHUT_WR)

    waiter.wait(deadline=monotonic() + 2)
    server_side.send(b"heartbeat")
    waiter.wake_at = monotonic() + 60
    deadline = monotonic() + 0.2
    while monotonic() < deadline:
        waiter.wait(deadline=deadline)

    assert client.recv(100) == b"heartbeat"


def test_a_pipelined_request_is_not_a_disconnect(pair, waiter):
    pair[1].send(b"GET / HTTP/1.1\r\n\r\n")

    deadline = monotonic() + 0.1
    while monotonic() < deadline:
        waiter.wait(deadline=deadline)

    assert waiter.cancel_reason is None


def test_a_closed_waiter_leaks_no_descriptors(pair):
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(50):
        waiter = waiting.new_waiter(pair[0])
        waiter.wait(deadline=monotonic() + 0.001)
        waiter.close()

    assert len(os.listdir("/proc/self/fd")) == before


def count_yields(waiter: waiting.Waiter) -> int:
    """How often `confirm_connected` yielded."""
    return sum(1 for _ in waiter.confirm_connected())


def test_a_connected_client_is_confirmed_at_once(waiter):
    waiter.wake()

    assert count_yields(waiter) == 0


def test_a_client_that_just_closed_is_found_disconnected(pair):
    waiter = waiting.new_waiter(pair[0])
    pair[1].close()

    with pytest.raises(ClientDisconnected):
        for number, _ in enumerate(waiter.confirm_connected()):
            if not number:
                pair[0].sendall(b"heartbeat")

    waiter.close()


def test_a_half_closed_client_is_confirmed(pair):
    waiter = waiting.new_waiter(pair[0])
    pair[1].shutdown(socket.SHUT_WR)

    assert count_yields(waiter) > 0

    waiter.close()


def test_a_thread_executor_returns_results_and_raises_errors():
    executor = waiting.ThreadExecutor()

    assert executor(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        executor(lambda: 1 / 0)
