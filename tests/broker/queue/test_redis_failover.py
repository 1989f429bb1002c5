"""What a fail-over may lose: states that a replica without the last writes has are made by restoring older keys."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

import pytest

from bff.broker.queue.base import Claim, LeaseLost, Message, Page
from bff.broker.queue.redis import RedisQueue
from bff.broker.queue.redis.logs import RESTART
from bff.errors import StorageUnavailable
from bff.ops import redis_sentinel
from bff.ops.redis import connect
from bff.upstream.message_ids import group_mark
from tests.broker.queue.queues import NO_WAIT, claim_next, enqueue, event_types, read_log
from tests.live import DEADLINE
from tests.redis_server import RedisServer
from tests.redis_sets import RedisSet, SentinelSet, count_connections, execute

T = TypeVar("T")

pytestmark = [pytest.mark.live, pytest.mark.servers]


@pytest.fixture(params=["sentinels", "cluster"])
def servers(request) -> RedisSet:
    servers: RedisSet = request.getfixturevalue(request.param)
    servers.flush()
    return servers


@pytest.fixture
def make_queue(servers) -> Iterator[Callable[..., RedisQueue]]:
    queues: list[RedisQueue] = []

    def make(lease: float = 60.0) -> RedisQueue:
        queues.append(RedisQueue(connect(servers.url), lease=lease))
        return queues[-1]

    yield make
    for queue in queues:
        queue.close()


@pytest.fixture
def queue(make_queue) -> RedisQueue:
    return make_queue()


class Snapshot:
    """Of all keys of all primaries: `restore` undoes what was written since, as a promoted replica does."""

    def __init__(self, servers: RedisSet) -> None:
        self._servers = servers.primaries()
        self._values = [self._dump(node.url) for node in self._servers]

    def _dump(self, url: str) -> dict[bytes, bytes]:
        with connect(url) as client:
            pool = client.connection_pool
            raw = pool.connection_class(**pool.connection_kwargs | {"decode_responses": False})
            values = {}
            for key in [*client.scan_iter()]:
                raw.send_command("DUMP", key)
                values[key.encode()] = raw.read_response()
            raw.disconnect()
        return values

    def restore(self, *names: str) -> None:
        """`names`: ends of the keys to restore; by default all."""
        for node, values in zip(self._servers, self._values, strict=True):
            with connect(node.url) as client:
                for key in [*client.scan_iter()]:
                    if not names or key.endswith(names):
                        client.delete(key)
                for key, value in values.items():
                    if not names or key.decode().endswith(names):
                        execute(client, "RESTORE", key, 0, value, "REPLACE")


def texts(page: Page) -> list[str]:
    return [event.data for event in page.events if event.event == "message"]


def test_lost_writes_are_repeated(queue, servers):
    message = enqueue(queue)
    claim = claim_next(queue)
    queue.append(claim, [("message", "one")])
    snapshot = Snapshot(servers)
    queue.append(claim, [("message", "two")])
    queue.append(claim, [("message", "three")])
    snapshot.restore()

    queue.append(claim, [("message", "four")])
    snapshot = Snapshot(servers)
    queue.append(claim, [("message", "five")])
    snapshot.restore()
    queue.finish(claim, [("message", "the end")])

    assert texts(read_log(queue, message)) == ["one", "two", "three", "four", "five", "the end"]


def test_a_reader_of_lost_events_starts_anew(queue, servers):
    message = enqueue(queue)
    claim = claim_next(queue)
    queue.append(claim, [("message", "one")])
    snapshot = Snapshot(servers)
    queue.append(claim, [("message", "two")])
    last_read = read_log(queue, message).events[-1].id
    snapshot.restore()

    page = queue.read(message.user_id, message.id, last_read)
    queue.append(claim, [("message", "three")])

    assert page.events[0] == RESTART
    assert texts(page)[1:] == ["one"]
    assert texts(queue.read(message.user_id, message.id, page.events[-1].id)) == ["two", "three"]
    assert texts(queue.read(message.user_id, message.id, RESTART.id)) == ["one", "two", "three"]


def test_a_lost_claim_cannot_write_once_another_worker_has_the_same_token(queue, make_queue, servers):
    message = enqueue(queue)
    snapshot = Snapshot(servers)
    lost = claim_next(queue)
    queue.append(lost, [("message", "told once")])
    snapshot.restore()

    claim = claim_next(make_queue())
    assert (claim.message, claim.token) == (message, lost.token)
    with pytest.raises(LeaseLost):
        queue.append(lost, [("message", "and twice")])
    with pytest.raises(LeaseLost):
        queue.finish(lost, [("message", "the end")])
    make_queue().finish(claim, [("message", "its end")])

    assert texts(read_log(queue, message)) == ["its end"]


def test_a_lost_conclusion_is_not_taken_for_an_end(queue, servers):
    message = enqueue(queue)
    claim = claim_next(queue)
    queue.append(claim, [("message", "one")])
    snapshot = Snapshot(servers)
    queue.conclude(claim, [("message", "the end")])
    snapshot.restore()

    with pytest.raises(LeaseLost):
        queue.finish(claim, [])

    assert not read_log(queue, message).ended


@pytest.mark.parametrize("servers", ["cluster"], indirect=True)
def test_a_group_that_is_not_scheduled_any_more_is_found(make_queue, cluster):
    cluster.flush()
    queue = make_queue()
    snapshot = Snapshot(cluster)
    message = enqueue(queue)
    snapshot.restore(":due")
    worker = make_queue()
    assert worker.claim(NO_WAIT) is None

    worker.sweep()

    assert worker.claim(NO_WAIT).message == message


def test_an_end_is_read_once_a_replica_has_it(queue, servers):
    message = enqueue(queue)
    queue.finish(claim_next(queue), [("message", "the end")])

    assert read_log(queue, message).ended
    replicas = [node for node in servers.nodes if node not in servers.primaries()]
    logs = []
    for node in replicas:
        with connect(node.url) as client:
            logs += [key for key in client.scan_iter() if key.endswith(f":l:{message.id}")]
            if logs:
                execute(client, "READONLY") if "cluster" in servers.url else None
    assert len(logs) == 1


def test_a_primary_without_replicas_refuses_the_end_if_it_must_have_one(queue, servers):
    message = enqueue(queue)
    queue.finish(claim_next(queue), [("message", "the end")])
    for node in servers.primaries():
        with connect(node.url) as client:
            client.config_set("min-replicas-to-write", 5)
    try:
        with pytest.raises(StorageUnavailable):
            read_log(queue, message)
    finally:
        for node in servers.primaries():
            with connect(node.url) as client:
                client.config_set("min-replicas-to-write", 0)
    assert read_log(queue, message).ended


def test_a_process_has_at_most_8_connections_to_a_server(make_queue, servers):
    before = count_connections(servers)
    queue = make_queue()
    queue.on_stop(lambda *_: None)
    messages = [enqueue(queue, f"user-{number}") for number in range(30)]
    woken = threading.Semaphore(0)
    contexts = [queue.subscribe(message.user_id, message.id, woken.release) for message in messages]
    for context in contexts:
        context.__enter__()
    assert all(woken.acquire(timeout=DEADLINE) for _ in messages)

    threads = [threading.Thread(target=read_log, args=(queue, message)) for message in messages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    added = [now - then for now, then in zip(count_connections(servers), before, strict=True)]
    assert 2 <= max(added) <= 8, added
    while claim := queue.claim(NO_WAIT):
        queue.finish(claim, [("message", "the end")])
    assert all(woken.acquire(timeout=DEADLINE) for _ in messages)
    for context in contexts:
        context.__exit__(None, None, None)
    assert event_types(queue, messages[0])[-1] == "done"


@pytest.fixture
def replaced(servers, monkeypatch) -> Iterator[Callable[[Callable[[], object]], None]]:
    """`replaced(call)` makes a call to a frozen primary which, unknown to the caller, has been replaced, and then thaws."""
    monkeypatch.setattr(redis_sentinel, "ASK_SECONDS", 3600)

    def run(call: Callable[[], object]) -> None:
        old = servers.fail_over(RedisServer.freeze, *() if isinstance(servers, SentinelSet) else (KEY,))
        caller = threading.Thread(target=call)
        caller.start()
        time.sleep(0.5)  # The command arrives.
        old.thaw()
        caller.join(DEADLINE)
        assert not caller.is_alive()

    yield run
    servers.wait_until_complete()


KEY = f"chat:{{{group_mark('ann', '')}}}:q"


def repeat(call: Callable[[], T], results: list[T]) -> None:
    """As a worker does while the queue is unavailable."""
    while not results:
        with suppress(StorageUnavailable):
            results.append(call())


def test_the_end_that_a_replaced_primary_accepted_is_written_once_more(queue, servers, replaced):
    message = enqueue(queue)
    claim = claim_next(queue)
    queue.append(claim, [("message", "one")])
    results: list[None] = []

    replaced(lambda: repeat(lambda: queue.finish(claim, [("message", "the end")]), results))

    assert results == [None]
    servers.wait_until_complete()
    assert texts(read_log(queue, message)) == ["one", "the end"]


def test_no_end_is_read_that_only_a_replaced_primary_has(queue, make_queue, servers, replaced):
    message = enqueue(queue)
    claim = claim_next(queue)
    pages: list[Page] = []
    reader = make_queue()
    read_log(reader, message)

    def finish_and_read() -> None:
        finishing = threading.Thread(target=repeat, args=(lambda: queue.finish(claim, [("message", "the end")]), []))
        finishing.start()
        while not pages or not pages[-1].ended:
            repeat(lambda: read_log(reader, message), page := [])
            pages.extend(page)
        finishing.join(DEADLINE)

    replaced(finish_and_read)

    servers.wait_until_complete()
    assert pages[-1].events == read_log(queue, message).events


def test_a_message_that_a_replaced_primary_accepted_is_not_lost(queue, servers, replaced):
    enqueue(queue, "bob")
    results: list[Message] = []

    replaced(lambda: repeat(lambda: enqueue(queue), results))

    servers.wait_until_complete()
    claimed = []
    while claim := queue.claim(1.0):
        claimed.append(claim.message)
        queue.finish(claim, [])
    assert results[0] in claimed


def test_a_claim_that_a_replaced_primary_granted_is_made_once_more(make_queue, servers, replaced):
    queue = make_queue(lease=5.0)  # For which the group waits if it was to be checked as the connection broke.
    message = enqueue(queue)
    results: list[Claim | None] = []

    replaced(lambda: repeat(lambda: queue.claim(DEADLINE), results))

    servers.wait_until_complete()
    assert results[0] is not None
    queue.finish(results[0], [("message", "the end")])
    assert texts(read_log(queue, message)) == ["the end"]
    assert make_queue().claim(NO_WAIT) is None
