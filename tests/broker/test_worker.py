"""The worker, when threads, Redis or the engine fail."""

import json
from collections.abc import Callable, Iterator

import pytest

from bff.broker.engines import Engines
from bff.broker.queue.base import Message, Queue
from bff.broker.queue.memory import MemoryQueue
from bff.broker.queue.redis import RedisQueue
from bff.broker.runner import Times
from bff.broker.worker import Bounds, Worker
from bff.http import waiting
from bff.http.waiting import Waiter
from bff.ops.metrics import ANSWERS, LEASES_LOST
from bff.ops.redis import connect
from bff.upstream.broker_client import BrokerClient
from bff.upstream.engine_client import EngineClient
from bff.upstream.http import new_session
from bff.upstream.services import Remote, Timeouts
from tests.broker.queue.queues import claim_next, enqueue, event_types, new_message, read_log
from tests.broker_responses import COMPLETED
from tests.live import BROKER_KEY, DEADLINE, eventually
from tests.original_broker import OriginalBroker
from tests.wire_server import HANG, LAST_CHUNK, WireServer, chunk, stream_head

REPLY = [stream_head(), COMPLETED, LAST_CHUNK]
TIMEOUTS = Timeouts(5, 5, 30, 30)
LEASE = 60.0
"""Seconds: longer than any test."""


@pytest.fixture
def start_worker() -> Iterator[Callable[..., Worker]]:
    """`start_worker(queue, engine, broker)`: a worker that runs one message at a time, until the test ends."""
    workers: list[Worker] = []

    def start(queue: Queue, engine: WireServer, broker: OriginalBroker | None = None) -> Worker:
        client = EngineClient(Remote(engine.url, "key"), new_session(), TIMEOUTS, 2**20)
        engines = Engines(client, client, external_broker(broker) if broker else None)
        workers.append(Worker(queue, engines, Times(answer_max=30, lease=LEASE), Bounds(1, 1)))
        workers[-1].start()
        return workers[-1]

    yield start
    for worker in workers:
        worker.drain(0)


def external_broker(broker: OriginalBroker) -> BrokerClient:
    service = Remote(broker.url, BROKER_KEY)
    traits = {"survives_restart": True, "is_bundled": False}
    return BrokerClient(service, new_session(), TIMEOUTS, client_id="test", max_event_bytes=2**20, **traits)


@pytest.fixture
def redis_queue(clean_redis) -> Iterator[RedisQueue]:
    queue = RedisQueue(connect(clean_redis.url), lease=LEASE)
    yield queue
    queue.close()


@pytest.fixture
def queue_behind_line(line) -> Iterator[RedisQueue]:
    """The same queue through a proxy that can lose responses."""
    queue = RedisQueue(connect(f"redis://127.0.0.1:{line.port}/0"), lease=LEASE)
    yield queue
    queue.close()


def enqueue_external(queue: Queue, user_id: str) -> Message:
    message = new_message(user_id, handler="external")
    message.content["org"] = "org"
    queue.enqueue(message, None, "enqueue")
    return message


def is_finished(queue: Queue, message: Message) -> bool:
    return bool(eventually(lambda: read_log(queue, message).ended, DEADLINE))


def test_a_message_is_released_if_its_thread_cannot_start(start_worker, monkeypatch, caplog):
    real_start, refused = waiting.start_task, []

    def start_task(steps: Iterator[None], waiter: Waiter) -> None:
        if not refused:
            refused.append(steps)
            raise RuntimeError("can't start new thread")
        real_start(steps, waiter)

    monkeypatch.setattr(waiting, "start_task", start_task)
    queue = MemoryQueue()
    messages = [enqueue(queue, "ann"), enqueue(queue, "ann"), enqueue(queue, "bob")]

    with WireServer(REPLY) as engine:
        start_worker(queue, engine)

        assert all(is_finished(queue, message) for message in messages)
    assert len(refused) == 1
    assert "can't start new thread" in caplog.text


def test_messages_for_the_external_broker_are_claimed_while_no_slot_is_free(start_worker):
    queue = MemoryQueue()
    with WireServer([stream_head(), HANG]) as engine, OriginalBroker() as broker:
        enqueue(queue, "ann")
        start_worker(queue, engine, broker)
        assert engine.wait_for(lambda: engine.requests, DEADLINE)

        waiting_since_a_restart = [enqueue_external(queue, user) for user in ("bob", "bob", "eve")]

        assert all(is_finished(queue, message) for message in waiting_since_a_restart)
    assert len(broker.completed) == 3


def test_unreadable_events_and_keepalives_are_not_logged(start_worker):
    ignored = b'data: {"type":[]}\n\ndata: {"type":null}\n\ndata: []\n\ndata: nonsense\n\ndata: {"type":"keepalive"}\n\n'
    queue = MemoryQueue()
    with WireServer([stream_head(), chunk(ignored), COMPLETED, LAST_CHUNK]) as engine:
        message = enqueue(queue)
        start_worker(queue, engine)

        assert is_finished(queue, message)
    assert json.loads(read_log(queue, message).events[-2].data)["type"] == "complete"
    assert event_types(queue, message) == ["queued", "processing", "message", "done"]


def test_a_lost_response_to_the_first_renewal_costs_no_reply(start_worker, redis_queue, queue_behind_line, line):
    with WireServer(REPLY) as engine:
        message = enqueue(redis_queue)
        line.drop_reply_to(message.id.encode())

        start_worker(queue_behind_line, engine)

        assert is_finished(redis_queue, message)
    assert line.cuts == 1
    assert event_types(redis_queue, message) == ["queued", "processing", "message", "done"]


def test_a_release_whose_response_is_lost_counts_as_handed_back(start_worker, redis_queue, queue_behind_line, line):
    handed_back, lost = ANSWERS.labels("handed_back", "chat")._value.get(), LEASES_LOST._value.get()
    with WireServer([HANG]) as engine:
        message = enqueue(redis_queue)
        redis_queue.release(claim_next(redis_queue))  # Loads the script into Redis.
        worker = start_worker(queue_behind_line, engine)
        assert engine.wait_for(lambda: engine.requests, DEADLINE)

        line.drop_reply_to(b'"interrupted"')  # Part of a release command.
        worker.drain(3)

    assert line.cuts == 1
    assert eventually(lambda: ANSWERS.labels("handed_back", "chat")._value.get() == handed_back + 1, DEADLINE)
    assert LEASES_LOST._value.get() == lost
    assert redis_queue.positions(message.user_id)[0].state == "queued"
