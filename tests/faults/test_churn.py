"""Thousands of streams that come and go, many of them rudely, leave nothing behind."""

import json
import socket

import pytest

from tests.faults.load import Crowd
from tests.live import Server, eventually

AT_ONCE = 100
WARM_UP, HALF = 400, 2500
MIB = 1024 * 1024


def churn(crowd: Crowd, count: int) -> None:
    """`count` more streams, some at a time; a third are left at a random moment, many before their first word."""
    for number in range(count):
        leave_after = crowd.random.uniform(0, 0.6) if number % 3 == 0 else None
        # Few users, each with many streams: what is kept for a user must not grow either.
        crowd.say("one two three four five", f"user-{number % AT_ONCE}", leave_after=leave_after)
        assert crowd.wait_for(lambda: crowd.busy < AT_ONCE, 20)
    assert crowd.wait_for(lambda: not crowd.busy, 20)


def counts(server: Server) -> dict[str, int]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        sock.sendall(b"GET /counts HTTP/1.0\r\n\r\n")
        reply = b"".join(iter(lambda: sock.recv(65536), b""))  # To its end, after which the server has closed it, too.
    inside = json.loads(reply.partition(b"\r\n\r\n")[2])
    return inside | {"descriptors": server.descriptors(), "threads": server.threads()}


def settled(server: Server) -> dict[str, int]:
    """What is counted once nothing is answered any more, and the threads in which gevent looks up names have left."""
    quiet = {"slots": 0, "readers": 0, "running": 0, "threads": 1}
    assert eventually(lambda: quiet.items() <= counts(server).items(), 15), counts(server)
    return counts(server)


@pytest.mark.live
@pytest.mark.timeout(150)
def test_five_thousand_streams_leave_nothing_behind(start):
    server = start(
        "counted",
        ECHO_WORD_SECONDS="0.1",
        MAX_STREAMS_PER_USER="100",
        MESSAGES_PER_MINUTE="100000",
        RETENTION_SECONDS="2",
    )

    with Crowd(server.port) as crowd:
        churn(crowd, WARM_UP)
        base = settled(server)
        churn(crowd, HALF)
        plateau = server.memory()
        churn(crowd, HALF)
        grown = server.memory() - plateau

    left = sum(stream.leaving for stream in crowd.streams)
    assert left > len(crowd.streams) / 5, "some were over before they could be left"
    assert sum(line.get("ended") == "aborted" for line in server.log_lines) > left / 2, "most in the middle of their answer"
    assert all(stream.is_exact() for stream in crowd.streams if not stream.leaving)
    assert eventually(lambda: settled(server) == base, 10), f"{settled(server)} is not {base}"
    assert grown < 5 * MIB, f"{grown / MIB:.1f} MiB more than after the first half"
