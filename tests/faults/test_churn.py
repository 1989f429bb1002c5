"""Hundreds of streams, many of them aborted, leak nothing, and nothing waits for the garbage collector."""

import json
import socket
from collections.abc import Iterator

import pytest

from tests.adopted import adoptable_broker, settings_of
from tests.faults.load import Clients
from tests.live import Server, eventually

CONCURRENCY = 100
SIZES = {"bundled": (150, 350), "adopted": (150, 250)}
"""Streams for warming up, and in each half. Leaks of adopted replies show in fewer."""
MIB = 1024 * 1024
UNCOLLECTED_OBJECTS = 30_000
"""Objects that the two young generations may hold before they are collected."""


def churn(clients: Clients, count: int) -> None:
    """Opens `count` streams, CONCURRENCY at a time; a third disconnect at a random moment, many before the first word."""
    for number in range(count):
        disconnect_after = clients.random.uniform(0, 0.6) if number % 3 == 0 else None
        # Few users with many streams each: a user's data must not grow either.
        clients.send("one two three four five", f"user-{number % CONCURRENCY}", disconnect_after=disconnect_after)
        assert clients.wait_for(lambda: clients.busy < CONCURRENCY, 60)
    assert clients.wait_for(lambda: not clients.busy, 60)


def fill_pools(clients: Clients) -> None:
    """Has CONCURRENCY long replies running at once: afterwards the pool of connections to a broker is full, and stays so."""
    for number in range(CONCURRENCY):
        clients.send(" ".join(["word"] * 50), f"user-{number}")
    assert clients.wait_for(lambda: not clients.busy, 60)


def counts(server: Server) -> dict[str, int]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        sock.sendall(b"GET /counts HTTP/1.0\r\n\r\n")
        reply = b"".join(iter(lambda: sock.recv(65536), b""))  # Read to the end, so that the server has closed it, too.
    process_counts = json.loads(reply.partition(b"\r\n\r\n")[2])
    return process_counts | {"descriptors": server.descriptors(), "threads": server.threads()}


def settled_counts(server: Server, **more: int) -> dict[str, int]:
    """Waits until nothing runs or is stored, and `more` counts are reached. Returns the counts."""
    expected = {"slots": 0, "readers": 0, "busy": 0, "kept": 0} | more
    current = {"slots": -1}

    def is_settled() -> bool:
        before = dict(current)
        current.update(counts(server))
        return expected.items() <= current.items() and current == before  # Equal twice: nothing is about to end.

    assert eventually(is_settled, 60), current
    return current | {"memory": server.memory()}


@pytest.fixture(params=["bundled", "adopted"])
def broker(request) -> str:
    """The bundled broker, or one whose events have no ids."""
    return str(request.param)


@pytest.fixture
def settings(broker: str) -> Iterator[dict[str, str]]:
    with adoptable_broker("0.1") as adoptable:
        yield settings_of(adoptable) if broker == "adopted" else {}


@pytest.mark.slow
@pytest.mark.live
@pytest.mark.timeout(400)
def test_hundreds_of_streams_leak_nothing(start, broker, settings):
    warm_up, half_size = SIZES[broker]
    threads = 2 if broker == "bundled" else 1
    server = start(
        "counted",
        **settings,
        ECHO_WORD_SECONDS="0.1",
        MAX_STREAMS_PER_USER="100",
        MESSAGES_PER_MINUTE="100000",
        RETENTION_SECONDS="5",  # Shorter retention could expire before the reader connects on a slow machine.
    )

    with Clients(server.port) as clients:
        # The main thread and, with the bundled engine, SQLite's: gevent's resolver threads have exited.
        fill_pools(clients)
        churn(clients, warm_up)
        baseline = settled_counts(server, threads=threads)
        churn(clients, half_size)
        half = settled_counts(server, threads=threads)
        churn(clients, half_size)
        end = settled_counts(server, threads=threads)

    # How many depends on the machine: on a slow one, more disconnect before they are served.
    assert "aborted" in server.ended, "some disconnected in the middle of the reply"
    assert [stream for stream in clients.streams if not stream.disconnecting and not stream.is_exact()] == []
    for name in ("greenlets", "descriptors", "ours"):
        assert end[name] == baseline[name], f"{name}: {end} after {baseline}"
    # One object per message stays, to tell late readers that the reply has expired.
    assert end["objects"] - half["objects"] < half_size * 1.5 + UNCOLLECTED_OBJECTS, f"{end} after {half}"
    assert end["memory"] - half["memory"] < 10 * MIB, f"{end} after {half}"
