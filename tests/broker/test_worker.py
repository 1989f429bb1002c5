"""What becomes of an answer when something breaks under its worker."""

import json
import threading
from collections.abc import Callable, Iterator

import pytest

from bff.broker.engines import Engines
from bff.broker.queue.base import Message, Queue
from bff.broker.queue.memory import MemoryQueue
from bff.broker.queue.redis import RedisQueue
from bff.broker.worker import Bounds, Worker
from bff.ops.metrics import ANSWERS, LEASES_LOST
from bff.ops.redis import connect
from bff.upstream.engine_client import EngineClient
from bff.upstream.http import new_session
from bff.upstream.services import Remote, Timeouts
from tests.broker.queue.queues import claimed, left, types, whole
from tests.broker_says import COMPLETED
from tests.live import DEADLINE, eventually
from tests.wire_server import HANG, LAST_CHUNK, WireServer, chunk, stream_head

ANSWERED = [stream_head(), COMPLETED, LAST_CHUNK]
LEASE = 60.0
"""Which does not end while a test runs."""


@pytest.fixture
def work() -> Iterator[Callable[..., Worker]]:
    """`work(queue, engine)`: a worker that answers one message at a time, until the test is over."""
    working: list[Worker] = []

    def start(queue: Queue, engine: WireServer) -> Worker:
        client = EngineClient(Remote(engine.url, "key"), new_session(), Timeouts(5, 5, 30, 30), 2**20)
        working.append(Worker(queue, Engines(client, client), Times(answer_max=30, lease=LEASE), Bounds(1, 1)))
        working[-1].start()
        return working[-1]

    yield start
    for worker in working:
        worker.drain(0)


@pytest.fixture
def near(clean_redis) -> Iterator[RedisQueue]:
    queue = RedisQueue(connect(clean_redis.url), lease=LEASE)
    yield queue
    queue.close()


@pytest.fixture
def far(line) -> Iterator[RedisQueue]:
    """At the far end of a line that may break."""
    queue = RedisQueue(connect(f"redis://127.0.0.1:{line.port}/0"), lease=LEASE)
    yield queue
    queue.close()


def answered(queue: Queue, said: Message) -> bool:
    return bool(eventually(lambda: whole(queue, said).over, DEADLINE))


def test_a_worker_that_cannot_begin_an_answer_hands_it_back(work, monkeypatch, caplog):
    started, refused = threading.Thread.start, []

    def start(thread: threading.Thread) -> None:
        if thread.name == "answer" and not refused:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        started(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    queue = MemoryQueue()
    said = [left(queue, "ann"), left(queue, "ann"), left(queue, "bob")]

    with WireServer(ANSWERED) as engine:
        work(queue, engine)

        assert all(answered(queue, one) for one in said)
    assert len(refused) == 1
    assert "can't start new thread" in caplog.text


def test_what_says_nothing_a_browser_could_read_is_in_no_log(work):
    nothing = b'data: {"type":[]}\n\ndata: {"type":null}\n\ndata: []\n\ndata: nonsense\n\ndata: {"type":"keepalive"}\n\n'
    queue = MemoryQueue()
    with WireServer([stream_head(), chunk(nothing), COMPLETED, LAST_CHUNK]) as engine:
        said = left(queue)
        work(queue, engine)

        assert answered(queue, said)
    assert json.loads(whole(queue, said).events[-2].data)["type"] == "complete"
    assert types(queue, said) == ["queued", "processing", "message", "done"]


def test_a_queue_that_is_away_at_the_first_sign_of_life_costs_no_answer(work, near, far, line):
    with WireServer(ANSWERED) as engine:
        said = left(near)
        line.lose_the_answer_to(said.id.encode())

        work(far, engine)

        assert answered(near, said)
    assert line.losses == 1
    assert types(near, said) == ["queued", "processing", "message", "done"]


def test_a_message_handed_back_without_a_receipt_was_not_lost(work, near, far, line):
    handed_back, lost = ANSWERS.labels("handed_back", "chat")._value.get(), LEASES_LOST._value.get()
    with WireServer([HANG]) as engine:
        said = left(near)
        near.release(claimed(near))  # Redis knows the script.
        worker = work(far, engine)
        assert engine.wait_for(lambda: engine.requests, DEADLINE)

        line.lose_the_answer_to(b'"interrupted"')  # Which is among what a release says.
        worker.drain(3)

    assert line.losses == 1
    assert eventually(lambda: ANSWERS.labels("handed_back", "chat")._value.get() == handed_back + 1, DEADLINE)
    assert LEASES_LOST._value.get() == lost
    assert near.positions(said.user_id)[0].state == "queued"
