import socket
import sys
import threading
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from math import inf
from time import monotonic

import pytest

from bff.errors import ServerRestarting
from bff.http import waiting
from bff.http.waiting import Waiter
from tests.live import DEADLINE, eventually

IDLE_SECONDS = 0.02
PAUSE_SECONDS = 0.1
"""Longer than IDLE_SECONDS: a task that waits for so long is parked under gevent."""

word: ContextVar[str] = ContextVar("word", default="")


@pytest.fixture(autouse=True)
def idle_soon(monkeypatch):
    monkeypatch.setattr("bff.http.waiting.greenlets.IDLE_SECONDS", IDLE_SECONDS)


@pytest.fixture
def pair():
    upstream, peer = socket.socketpair()
    upstream.setblocking(False)
    with upstream, peer:
        yield upstream, peer


class Reader:
    """Steps that read what arrives, up to its end."""

    def __init__(self, waiter: Waiter, upstream: socket.socket, deadline: float = inf) -> None:
        self.received: list[bytes] = []
        self.wakes = 0
        self.error: Exception | None = None
        self.ended = False
        self._waiter, self._upstream, self._deadline = waiter, upstream, deadline

    def steps(self) -> Iterator[None]:
        try:
            yield from self._read()
        except ServerRestarting as error:
            self.error = error
        finally:
            self.ended = True

    def _read(self) -> Iterator[None]:
        while monotonic() < self._deadline:
            try:
                data = self._upstream.recv(100)
            except BlockingIOError:
                yield
                self._waiter.wait(self._upstream, self._deadline)
                self.wakes += 1
                continue
            self.received.append(data)
            if not data:
                return


@pytest.fixture
def start(waiter, pair):
    def start(deadline: float = inf) -> Reader:
        reader = Reader(waiter, pair[0], deadline)
        waiting.start_task(reader.steps(), waiter)
        return reader

    return start


def test_a_task_reads_what_arrives_after_pauses(start, pair):
    reader = start()
    for number, data in enumerate((b"a", b"b", b"c"), start=1):
        threading.Timer(number * PAUSE_SECONDS, pair[1].send, [data]).start()

    assert eventually(lambda: reader.received == [b"a", b"b", b"c"], DEADLINE), reader.received
    assert reader.wakes < 12, "it should not poll"
    pair[1].close()
    assert eventually(lambda: reader.ended, DEADLINE)


def test_a_task_ends_at_its_deadline(start):
    began = monotonic()
    reader = start(began + PAUSE_SECONDS)

    assert eventually(lambda: reader.ended, DEADLINE)
    assert PAUSE_SECONDS - 0.01 < monotonic() - began < 4


def test_an_idle_task_can_be_woken(start, waiter):
    reader = start(monotonic() + 60)
    wakes: list[int] = []

    def wake() -> None:
        wakes.append(reader.wakes)
        waiter.wake()

    threading.Timer(PAUSE_SECONDS, wake).start()

    assert eventually(lambda: wakes and reader.wakes > wakes[0], DEADLINE)
    waiter.cancel(ServerRestarting())
    assert eventually(lambda: reader.ended, DEADLINE), "before its sockets are closed"


@pytest.mark.parametrize("seconds", [0.0, PAUSE_SECONDS])
def test_a_task_can_be_cancelled(start, waiter, seconds):
    reader = start()
    threading.Timer(seconds, waiter.cancel, [ServerRestarting()]).start()

    assert eventually(lambda: reader.ended, DEADLINE)
    assert isinstance(reader.error, ServerRestarting)


def test_a_task_has_a_context_of_its_own(waiter):
    words: list[str] = []

    def steps() -> Iterator[None]:
        words.append(word.get())
        word.set("the task's")
        for _ in waiter.sleep(PAUSE_SECONDS):
            words.append(word.get())
            yield
        words.append("end")

    word.set("the caller's")
    waiting.start_task(steps(), waiter)

    assert eventually(lambda: words[-1:] == ["end"], DEADLINE)
    assert set(words) == {"", "the task's", "end"}
    assert word.get() == "the caller's"


if "gevent.monkey" in sys.modules:  # A thread is kept while it waits.

    def test_an_idle_task_has_no_greenlet(waiter, pair):
        from gevent import getcurrent

        greenlets: list[weakref.ref[object]] = []
        reader = Reader(waiter, pair[0])

        def steps() -> Iterator[None]:
            greenlets.append(weakref.ref(getcurrent()))
            for _ in reader.steps():
                greenlets.append(weakref.ref(getcurrent()))
                yield

        waiting.start_task(steps(), waiter)

        assert eventually(lambda: greenlets and not any(greenlet() for greenlet in greenlets), DEADLINE)
        pair[1].send(b"a")
        assert eventually(lambda: reader.received == [b"a"], DEADLINE)
        pair[1].close()
        assert eventually(lambda: reader.ended, DEADLINE)
