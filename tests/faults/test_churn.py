"""Thousands of streams that come and go, many of them rudely, leave nothing behind, and none waits for the collector."""

import json
import socket
from collections.abc import Iterator

import pytest

from tests.adopted import adoptable_broker, settings_of
from tests.faults.load import Crowd
from tests.live import Server, eventually

AT_ONCE = 100
SIZES = {"bundled": (400, 1500), "adopted": (150, 250)}
"""Streams to warm up, and of each half: what only an adopted reply holds shows in fewer."""
MIB = 1024 * 1024
YOUNG = 30_000
"""Objects: what the collector's two young generations may hold until they are looked at, of anybody's."""


def churn(crowd: Crowd, count: int) -> None:
    """`count` more streams, some at a time; a third are left at a random moment, many before their first word."""
    for number in range(count):
        leave_after = crowd.random.uniform(0, 0.6) if number % 3 == 0 else None
        # Few users, each with many streams: what is kept for a user must not grow either.
        crowd.say("one two three four five", f"user-{number % AT_ONCE}", leave_after=leave_after)
        assert crowd.wait_for(lambda: crowd.busy < AT_ONCE, 60)
    assert crowd.wait_for(lambda: not crowd.busy, 60)


def counts(server: Server) -> dict[str, int]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        sock.sendall(b"GET /counts HTTP/1.0\r\n\r\n")
        reply = b"".join(iter(lambda: sock.recv(65536), b""))  # To its end, after which the server has closed it, too.
    inside = json.loads(reply.partition(b"\r\n\r\n")[2])
    return inside | {"descriptors": server.descriptors(), "threads": server.threads()}


def settled(server: Server, **more: int) -> dict[str, int]:
    """What is counted once nothing is answered or kept any more; `more` of what is to be so by then."""
    quiet = {"slots": 0, "readers": 0, "busy": 0, "kept": 0} | more
    seen = {"slots": -1}

    def is_settled() -> bool:
        before = dict(seen)
        seen.update(counts(server))
        return quiet.items() <= seen.items() and seen == before  # Twice: what is about to end has done so.

    assert eventually(is_settled, 60), f"{seen}"
    return seen | {"memory": server.memory()}


@pytest.fixture(params=["bundled", "adopted"])
def broker(request) -> str:
    """Which one: the bundled one, or one that numbers nothing."""
    return str(request.param)


@pytest.fixture
def settings(broker: str) -> Iterator[dict[str, str]]:
    with adoptable_broker("0.1") as adoptable:
        yield settings_of(adoptable) if broker == "adopted" else {}


@pytest.mark.live
@pytest.mark.timeout(400)
def test_thousands_of_streams_leave_nothing_behind(start, broker, settings):
    warm_up, half_size = SIZES[broker]
    threads = 2 if broker == "bundled" else 1
    server = start(
        "counted",
        **settings,
        ECHO_WORD_SECONDS="0.1",
        MAX_STREAMS_PER_USER="100",
        MESSAGES_PER_MINUTE="100000",
        RETENTION_SECONDS="5",  # On a slow machine shorter would be over before an answer's reader has come.
    )

    with Crowd(server.port) as crowd:
        # The main one and, for the bundled engine, the one for SQLite: those in which gevent looks up names have left.
        churn(crowd, warm_up)
        base = settled(server, threads=threads)
        churn(crowd, half_size)
        half = settled(server, threads=threads)
        churn(crowd, half_size)
        end = settled(server, threads=threads)

    # How many depends on the machine: the slower, the more have left before they are served, or see all at once.
    assert "aborted" in server.ended, "some were left in the middle of their answer"
    assert [stream for stream in crowd.streams if not stream.leaving and not stream.is_exact()] == []
    for name in ("greenlets", "descriptors", "ours"):
        assert end[name] == base[name], f"{name}: {end} after {base}"
    # One a message stays for a while longer, so that whoever comes late is told that it is gone.
    assert end["objects"] - half["objects"] < half_size * 1.5 + YOUNG, f"{end} after {half}"
    assert end["memory"] - half["memory"] < 10 * MIB, f"{end} after {half}"
