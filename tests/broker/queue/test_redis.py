"""The queue in Redis: leases, broken connections, several processes, and the expiry of keys.

`test_contract.py` tests what all queues have in common.
"""

import queue as stdlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from bff.broker.queue.base import MAX_CLAIMS, Claim, Counts, LeaseLost, Limits, Message, QueuePosition
from bff.broker.queue.redis import RedisQueue, claims, presence, subscriber, writes
from bff.broker.queue.redis.keys import part_of
from bff.errors import IdempotencyConflict, ServerFull, SettingsError, StorageUnavailable, TooManyRequests
from bff.ops import redis as ops_redis
from bff.ops import redis_limits, redis_pool
from bff.ops.rate_limiter import RateLimiter
from bff.ops.redis import Client, check, connect
from bff.ops.redis_keys import hash_user_id
from bff.ops.redis_limits import RedisLimits
from tests.broker.queue.queues import NO_WAIT, claim_next, enqueue, event_types, new_message, published_positions, read_log
from tests.live import DEADLINE, eventually, free_port, in_parallel
from tests.redis_server import RedisServer

LEASE = 0.3
LONG = 60.0
"""Seconds: a lease that does not end during a test."""
REAPED_WITHIN = 5.0
"""Seconds after the end of a lease."""
DAY_MS = 24 * 3600 * 1000

Open = Callable[..., RedisQueue]


@pytest.fixture
def open_queue(clean_redis) -> Iterator[Open]:
    """`open_queue(lease=0.3)`: the queue of another process."""
    opened: list[RedisQueue] = []

    def make(url: str = clean_redis.url, lease: float = LONG, **limits: float) -> RedisQueue:
        opened.append(RedisQueue(connect(url), Limits(**limits), lease))
        return opened[-1]

    yield make
    for queue in opened:
        with suppress(StorageUnavailable):
            queue.close()


@pytest.fixture
def client(clean_redis) -> Iterator[Client]:
    with connect(clean_redis.url) as client:
        yield client


@pytest.fixture
def remote_queue(open_queue, line) -> RedisQueue:
    """A queue behind a proxy that can cut connections. Its scripts are loaded into Redis already."""
    queue = open_queue(f"redis://127.0.0.1:{line.port}/0")
    enqueue(queue, "warm-up")
    claim = claim_next(queue)
    queue.append(claim, [("message", "warm-up")])
    queue.finish(claim, [])
    enqueue(queue, "warm-up")
    queue.release(claim_next(queue))
    queue.stop("warm-up", queue.positions("warm-up")[0].message_id)
    return queue


def part_key(name: str, user_id: str = "ann") -> str:
    """The key of the user's part of the schedule."""
    return f"chat:{{{part_of(hash_user_id(user_id))}}}:{name}"


FLEETING = part_key("fleeting")


def message_texts(queue: RedisQueue, message: Message) -> list[str]:
    return [event.data for event in read_log(queue, message).events if event.event == "message"]


def key_ttls(client: Client) -> dict[str, int]:
    """Returns the milliseconds until each key expires; -1: never."""
    return {key: ttl for key in client.scan_iter() if (ttl := client.pttl(key)) != -2}


@contextmanager
def read_live(queue: RedisQueue, message: Message) -> Iterator["stdlib.Queue[str]"]:
    """Follows the message in a thread. Yields a queue of its events' data, with "" after the last one."""
    received: stdlib.Queue[str] = stdlib.Queue()
    woken, closed = threading.Semaphore(0), threading.Event()

    def follow() -> None:
        after = ""
        with queue.subscribe(message.user_id, message.id, woken.release):
            while not closed.is_set():
                woken.acquire()
                with suppress(StorageUnavailable):
                    page = queue.read(message.user_id, message.id, after)
                    for event in page.events:
                        received.put(event.data)
                        after = event.id
                    if page.ended:
                        received.put("")
                        return

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    try:
        yield received
    finally:
        closed.set()
        woken.release()
        reader.join(DEADLINE)
    assert not reader.is_alive()


def read_to_end(received: "stdlib.Queue[str]") -> list[str]:
    return list(iter(lambda: received.get(timeout=DEADLINE), ""))


# Leases.


def test_a_dead_workers_message_without_output_runs_again(open_queue):
    dead, alive = open_queue(lease=LEASE), open_queue(lease=LEASE)
    message = enqueue(dead)
    first = claim_next(dead)
    dead.append(first, [("processing", "")], started=False)

    second = alive.claim(LEASE + REAPED_WITHIN)

    assert second is not None
    assert second.message == message
    assert second.token > first.token


def test_a_dead_workers_message_with_output_is_interrupted(open_queue):
    dead, alive = open_queue(lease=LEASE), open_queue(lease=LEASE)
    message, following = enqueue(dead), enqueue(dead)
    dead.append(claim_next(dead), [("message", "so f")])

    second = alive.claim(LEASE + REAPED_WITHIN)

    assert second is not None
    assert second.message == following
    assert message_texts(alive, message)[0] == "so f"
    assert '"interrupted"' in message_texts(alive, message)[1]
    assert event_types(alive, message)[-1] == "done"


def test_a_dead_workers_message_that_was_to_stop_is_stopped(open_queue):
    dead, alive = open_queue(lease=LEASE), open_queue(lease=LEASE)
    message = enqueue(dead)
    claim_next(dead)
    alive.stop(message.user_id, message.id)

    assert eventually(lambda: alive.claim(NO_WAIT) is None and read_log(alive, message).ended, LEASE + REAPED_WITHIN)
    assert '"stopped"' in message_texts(alive, message)[0]


@pytest.mark.parametrize("has_output", [False, True])
def test_a_worker_whose_lease_has_ended_changes_nothing(open_queue, has_output):
    frozen, alive = open_queue(lease=LEASE), open_queue(lease=LEASE)
    message, following = enqueue(frozen), enqueue(frozen)
    claim = claim_next(frozen)
    if has_output:
        frozen.append(claim, [("message", "so f")])
    next_claim = alive.claim(LEASE + REAPED_WITHIN)
    assert next_claim is not None
    assert next_claim.message == (following if has_output else message)
    log, in_order = read_log(alive, message), alive.positions(message.user_id)

    for write in late_writes(frozen, claim):
        with pytest.raises(LeaseLost):
            write()

    assert read_log(alive, message) == log
    assert alive.positions(message.user_id) == in_order
    alive.finish(next_claim, [])


def late_writes(queue: RedisQueue, claim: Claim) -> list[Callable[[], object]]:
    return [
        lambda: queue.append(claim, [("message", "too late")]),
        lambda: queue.append(claim, [("processing", "")], started=False),
        lambda: queue.renew(claim),
        lambda: queue.finish(claim, [("message", "too late")]),
        lambda: queue.release(claim),
    ]


def test_renew_extends_the_lease(open_queue, client):
    queue = open_queue(lease=LONG)
    message = enqueue(queue)
    claim = claim_next(queue)
    run = f"chat:{{{hash_user_id(message.user_id)}}}:run"
    client.hset(run, "until", int(client.hget(run, "until")) - 59_500_000)  # Leaves 0.5 seconds of the lease.

    assert queue.renew(claim) is None

    assert int(client.hget(run, "until")) > time.time() * 1_000_000 + 30_000_000
    queue.append(claim, [("message", "still here")])


def test_a_late_worker_continues_if_its_message_was_not_claimed(open_queue):
    queue = open_queue(lease=0.01)
    message = enqueue(queue)
    claim = claim_next(queue)
    time.sleep(0.02)  # Longer than the lease.

    queue.append(claim, [("message", "slow, ")])
    queue.finish(claim, [("message", "but complete")])

    assert message_texts(queue, message) == ["slow, ", "but complete"]


def test_a_message_that_kills_its_workers_is_interrupted(open_queue):
    queue = open_queue(lease=0.05)
    message = enqueue(queue)

    claims = [queue.claim(REAPED_WITHIN) for _ in range(MAX_CLAIMS)]

    assert [claim.token for claim in claims if claim] == [1, 2, 3, 4, 5]
    assert eventually(lambda: queue.claim(NO_WAIT) is None and read_log(queue, message).ended, REAPED_WITHIN)
    assert '"interrupted"' in message_texts(queue, message)[0]


# Connections that break before or after a reply.


def test_a_repeated_append_is_written_once(remote_queue, line):
    message = enqueue(remote_queue)
    claim = claim_next(remote_queue)

    line.drop_reply_to(b"the text")
    with pytest.raises(StorageUnavailable):
        remote_queue.append(claim, [("message", "the text")])
    remote_queue.append(claim, [("message", "the text")])
    for _ in range(2):
        remote_queue.append(claim, [("message", "again")])
    remote_queue.finish(claim, [])

    assert line.cuts == 1
    assert message_texts(remote_queue, message) == ["the text", "again", "again"]


def test_a_repeated_finish_is_written_once_and_the_next_message_runs(remote_queue, line):
    message, following = enqueue(remote_queue), enqueue(remote_queue)
    claim = claim_next(remote_queue)

    line.drop_reply_to(b"the end")
    with pytest.raises(StorageUnavailable):
        remote_queue.finish(claim, [("message", "the end")])
    remote_queue.finish(claim, [("message", "the end")])

    assert line.cuts == 1
    assert event_types(remote_queue, message) == ["queued", "message", "done"]
    assert remote_queue.claim(NO_WAIT).message == following
    with pytest.raises(LeaseLost):
        remote_queue.finish(claim, [("message", "another end")])


def test_a_release_whose_reply_was_lost_takes_effect(remote_queue, line, open_queue):
    message = enqueue(remote_queue)
    claim = claim_next(remote_queue)

    line.drop_reply_to(b'"interrupted"')  # Part of a release command.
    with pytest.raises(StorageUnavailable):
        remote_queue.release(claim)
    with pytest.raises(LeaseLost):
        remote_queue.release(claim)

    second_claim = open_queue().claim(NO_WAIT)
    assert (second_claim.message, second_claim.token) == (message, claim.token + 1)


def test_a_claim_whose_reply_was_lost_runs_again(open_queue, line, remote_queue):
    queue = open_queue(f"redis://127.0.0.1:{line.port}/0", lease=LEASE)
    message = enqueue(remote_queue)

    line.drop_reply_to(b'"interrupted"')
    with pytest.raises(StorageUnavailable):
        queue.claim(NO_WAIT)

    second_claim = open_queue(lease=LEASE).claim(LEASE + REAPED_WITHIN)
    assert second_claim is not None
    assert (second_claim.message, second_claim.token) == (message, 2)


def test_a_claim_whose_reply_was_lost_is_repeated(open_queue, line, remote_queue, monkeypatch):
    monkeypatch.setattr(claims, "REPEAT_SECONDS", 0)
    message = enqueue(remote_queue)

    line.drop_reply_to(b'"interrupted"')
    with pytest.raises(StorageUnavailable):
        remote_queue.claim(NO_WAIT)
    assert open_queue().claim(NO_WAIT) is None
    claim = remote_queue.claim(NO_WAIT)
    assert (claim.message, claim.token) == (message, 1)
    remote_queue.finish(claim, [("message", "the end")])

    assert message_texts(remote_queue, message) == ["the end"]
    assert remote_queue.claim(NO_WAIT) is None


def test_a_message_that_is_stopped_before_its_claim_is_repeated_stops(open_queue, line, remote_queue, monkeypatch):
    monkeypatch.setattr(claims, "REPEAT_SECONDS", 0)
    message, following = enqueue(remote_queue), enqueue(remote_queue)

    line.drop_reply_to(b'"interrupted"')
    with pytest.raises(StorageUnavailable):
        remote_queue.claim(NO_WAIT)
    other = open_queue()
    other.stop(message.user_id, message.id)
    claim = remote_queue.claim(NO_WAIT)
    assert claim.message == message
    assert remote_queue.renew(claim) == "stopped"
    remote_queue.finish(claim, [("message", "the end")])

    assert other.claim(NO_WAIT).message == following
    assert remote_queue.claim(NO_WAIT) is None


def test_a_repeated_enqueue_adds_one_message(remote_queue, line):
    message = new_message(text="the question")

    line.drop_reply_to(b"the question")
    with pytest.raises(StorageUnavailable):
        remote_queue.enqueue(message, "client's own", "enqueue")
    receipt = remote_queue.enqueue(message._replace(id="another"), "client's own", "enqueue")

    assert receipt.message_id == message.id
    assert remote_queue.positions(message.user_id) == [QueuePosition(message.id, "queued", 1)]
    with pytest.raises(IdempotencyConflict):
        remote_queue.enqueue(new_message(text="another question"), "client's own", "enqueue")


def test_a_process_that_dies_after_enqueueing_delays_the_message_by_a_lease(open_queue, line, remote_queue):
    queue = open_queue(f"redis://127.0.0.1:{line.port}/0", lease=LEASE)
    message = new_message(text="the question")

    line.close_after(b"the question")
    queue.enqueue(message, None, "enqueue")

    claim = open_queue(lease=LEASE).claim(LEASE + REAPED_WITHIN)
    assert claim is not None
    assert claim.message == message


def test_a_process_that_dies_after_finishing_delays_the_next_message_by_a_lease(open_queue, line, remote_queue):
    queue = open_queue(f"redis://127.0.0.1:{line.port}/0", lease=LEASE)
    message, following = enqueue(queue), enqueue(queue)
    claim = claim_next(queue)

    line.close_after(b"the end")
    with pytest.raises(StorageUnavailable):
        queue.finish(claim, [("message", "the end")])

    alive = open_queue(lease=LEASE)
    assert read_log(alive, message).ended
    assert alive.claim(LEASE + REAPED_WITHIN).message == following


def test_an_unread_message_is_cancelled_if_its_process_died_after_enqueueing(open_queue, line, remote_queue):
    queue = open_queue(f"redis://127.0.0.1:{line.port}/0", grace=0.1)
    message = new_message(text="the question", cancel_on_disconnect=True)

    line.close_after(b"the question")
    queue.enqueue(message, None, "enqueue")

    alive = open_queue(grace=0.1)
    assert eventually(lambda: alive.sweep() or read_log(alive, message).ended, DEADLINE)


def test_a_reader_counts_at_once_in_a_process_that_knew_of_no_message_to_cancel(open_queue):
    queue, other = open_queue(), open_queue()
    message = enqueue(queue, cancel_on_disconnect=True)
    claim = claim_next(queue)

    with other.subscribe(message.user_id, message.id, lambda: None, cancel_on_disconnect=True):
        queue.cancel_if_no_readers(message.user_id, message.id)

        assert queue.renew(claim) is None


def test_a_sweep_continues_after_a_connection_error(open_queue, line, client):
    remote_queue, near = open_queue(f"redis://127.0.0.1:{line.port}/0", grace=0.1), open_queue(grace=0.1)
    messages = [enqueue(near, f"user-{number}", cancel_on_disconnect=True) for number in range(3)]
    remote_queue.sweep()
    time.sleep(0.2)  # Longer than the grace period.

    line.drop_reply_to(messages[1].id.encode())
    with pytest.raises(StorageUnavailable):
        remote_queue.sweep()
    remote_queue.sweep()

    assert [read_log(near, message).ended for message in messages] == [True, True, True]
    assert not client.keys("chat:*:fleeting")


def test_presence_is_published_again_after_an_error(open_queue, client, monkeypatch, caplog):
    monkeypatch.setattr(presence, "PUBLISH_SECONDS", 0.02)
    queue = open_queue(grace=0.5)
    message = enqueue(queue, cancel_on_disconnect=True)
    member = f"{hash_user_id(message.user_id)} {message.id}"

    with queue.subscribe(message.user_id, message.id, lambda: None):
        client.rename(FLEETING, "backup")
        client.set(FLEETING, "of another type")
        assert eventually(lambda: "cannot publish readers" in caplog.text, DEADLINE)
        client.rename("backup", FLEETING)
        score = client.zscore(FLEETING, member)
        assert eventually(lambda: client.zscore(FLEETING, member) > score, DEADLINE)


def test_a_users_streams_are_renewed_after_an_error(client, monkeypatch, caplog):
    monkeypatch.setattr(redis_limits, "STREAM_TTL_SECONDS", 0.06)
    shared, key = RedisLimits(client, streams=5, per_minute=1), f"chat:{{{hash_user_id('ann')}}}:streams"
    stream = shared.acquire_stream("ann")
    client.set(key, "of another type")
    assert eventually(lambda: "could not be renewed" in caplog.text, DEADLINE)

    client.delete(key)

    assert eventually(lambda: client.zscore(key, stream), DEADLINE)
    shared.release_stream("ann", stream)


def test_a_request_refused_by_another_process_is_not_counted_here(client):
    elsewhere, here = (RateLimiter(2, RedisLimits(client, streams=1, per_minute=2)) for _ in range(2))
    for _ in range(2):
        elsewhere.acquire("ann")

    for _ in range(5):
        with pytest.raises(TooManyRequests):
            here.acquire("ann")
    client.flushall()

    here.acquire("ann")


def test_a_request_refused_here_is_not_counted_by_other_processes(client):
    elsewhere = RedisLimits(client, streams=1, per_minute=3)
    here = RateLimiter(1, elsewhere)
    here.acquire("ann")

    for _ in range(5):
        with pytest.raises(TooManyRequests):
            here.acquire("ann")

    for _ in range(2):
        elsewhere.acquire("ann")


def test_completing_an_outdated_check_does_not_unschedule_a_new_message(open_queue, client):
    """A worker finds a group empty; before it completes the check, a message is enqueued."""
    queue = open_queue(lease=0.001)
    user = hash_user_id("ann")
    client.zadd(part_key("due"), {user: 1})
    queue._schedule.look(at_once=True)
    _, moment = queue._schedule.claim_due()
    time.sleep(0.01)  # Longer than the lease.

    message = enqueue(queue)
    queue._schedule.complete(user, moment)

    assert queue.claim(NO_WAIT).message == message


# Outages of Redis.


@pytest.fixture
def server(tmp_path) -> Iterator[RedisServer]:
    """A persistent server that a test may stop."""
    with RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "no") as server:  # A busy disk would delay writes.
        yield server


@pytest.mark.parametrize("number", [15, 9])
def test_a_restarted_redis_continues_where_it_was(open_queue, server, number):
    queue, other = open_queue(server.url), open_queue(server.url)
    message, following = enqueue(queue), enqueue(queue)
    claim = claim_next(queue)
    queue.append(claim, [("message", "before, ")])

    with read_live(other, message) as received:
        assert received.get(timeout=DEADLINE)
        server.stop(number)
        with pytest.raises(StorageUnavailable):
            queue.append(claim, [("message", "after")])
        with pytest.raises(StorageUnavailable):
            other.positions(message.user_id)
        server.start()
        queue.append(claim, [("message", "after")])
        queue.finish(claim, [])

        assert read_to_end(received) == ["before, ", "after", f'{{"message_id": "{message.id}"}}']
    assert claim_next(other).message == following


def test_a_redis_restarted_without_its_data_is_an_empty_queue(open_queue, tmp_path):
    with RedisServer(tmp_path) as server:
        queue = open_queue(server.url)
        enqueue(queue)
        claim = claim_next(queue)
        server.stop()
        server.start()

        with pytest.raises(LeaseLost):
            queue.renew(claim)
        message = enqueue(queue)
        assert claim_next(queue).message == message


def test_flushed_scripts_are_loaded_again(open_queue, client):
    queue = open_queue()
    message = enqueue(queue)
    claim = claim_next(queue)
    client.script_flush()

    queue.append(claim, [("message", "words")])
    client.script_flush()
    assert queue.counts() == Counts(queues=1, running=1)
    client.script_flush()
    queue.finish(claim, [])

    assert message_texts(queue, message) == ["words"]


def test_a_silent_redis_is_unavailable_until_it_replies(open_queue, server, monkeypatch):
    monkeypatch.setattr(ops_redis, "TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(subscriber, "PING_SECONDS", 0.3)
    queue, other = open_queue(server.url), open_queue(server.url)
    message = enqueue(queue)
    claim = claim_next(queue)

    with read_live(other, message) as received:
        assert received.get(timeout=DEADLINE)
        server.freeze()
        with pytest.raises(StorageUnavailable):
            queue.append(claim, [("message", "words")])
        with pytest.raises(StorageUnavailable):
            other.positions(message.user_id)
        server.thaw()
        assert eventually(lambda: is_available(queue), DEADLINE)
        queue.append(claim, [("message", "words")])
        queue.finish(claim, [])

        assert read_to_end(received) == ["words", f'{{"message_id": "{message.id}"}}']


def is_available(queue: RedisQueue) -> bool:
    with suppress(StorageUnavailable):
        queue.counts()
        return True
    return False


def test_a_replica_is_unavailable_until_it_is_promoted(open_queue, server):
    queue = open_queue(server.url)
    message = enqueue(queue)
    claim = claim_next(queue)
    with connect(server.url) as client:
        client.config_set("replica-serve-stale-data", "no")
        client.replicaof("127.0.0.1", free_port())
        for call in (lambda: queue.append(claim, [("message", "words")]), lambda: read_log(queue, message), queue.sweep):
            with pytest.raises(StorageUnavailable):
                call()
        client.config_set("replica-serve-stale-data", "yes")
        with pytest.raises(StorageUnavailable):
            queue.append(claim, [("message", "words")])
        client.replicaof("no", "one")

    queue.append(claim, [("message", "words")])
    assert message_texts(queue, message) == ["words"]


@pytest.mark.servers
def test_limits_are_per_process_while_redis_is_silent(server, monkeypatch):
    monkeypatch.setattr(ops_redis, "TIMEOUT_SECONDS", 0.2)
    with connect(server.url) as client:
        limits = RedisLimits(client, streams=1, per_minute=1)
        stream = limits.acquire_stream("ann")
        server.freeze()

        for _ in range(20):
            limits.acquire("ann")
            limits.release_stream("ann", limits.acquire_stream("ann"))

        limits.release_stream("ann", stream)


def test_a_full_redis_refuses_new_messages_and_finishes_running_ones(open_queue, client):
    queue = open_queue()
    stop_calls: stdlib.Queue[str] = stdlib.Queue()
    queue.on_stop(stop_calls.put)
    message, waiting = enqueue(queue), enqueue(queue)
    claim = claim_next(queue)
    other = enqueue(queue, "bob")
    others = claim_next(queue)
    assert eventually(lambda: dict(client.pubsub_numsub("chat:stop"))["chat:stop"] == 1, DEADLINE)

    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(ServerFull):
            enqueue(queue, "cy")
        with pytest.raises(ServerFull):
            queue.append(claim, [("message", "words")])
        assert queue.renew(claim) is None, "a live worker keeps its claim"
        queue.stop(other.user_id, other.id)
        assert stop_calls.get(timeout=DEADLINE) == other.id
        assert queue.renew(others) == "stopped"
        queue.stop(waiting.user_id, waiting.id)
        queue.finish(others, [("message", "its end")])
        queue.release(claim)
        queue.sweep()
        claim = claim_next(queue)
        assert claim.message == message
    finally:
        client.config_set("maxmemory", 0)
    queue.append(claim, [("message", "words")])
    queue.finish(claim, [])

    assert message_texts(queue, message) == ["words"]
    assert message_texts(queue, other) == ["its end"]
    assert read_log(queue, waiting).ended
    assert queue.positions("cy") == []
    enqueue(queue, "cy")


# Keys.


def test_only_active_queues_have_keys_without_expiry(open_queue, client):
    queue = open_queue(retention=1.0, grace=0.1)
    users = [f"user-{number}" for number in range(5)]
    for number, user in enumerate(users * 4):
        queue.enqueue(new_message(user), f"client's own {number}", "enqueue")
        enqueue(queue, user, cancel_on_disconnect=number % 2 == 0)
    running = [claim_next(queue) for _ in users]
    for claim in running[:4]:
        queue.append(claim, [("message", "words")])
    enqueue(queue, users[0], on_busy="interrupt")
    queue.stop(users[1], queue.positions(users[1])[1].message_id)
    queue.release(running[1])
    queue.release(running[4])

    permanent = {key.rpartition(":")[2] if ":m:" not in key else "m" for key, ms in key_ttls(client).items() if ms == -1}
    assert permanent == {"due", "fleeting", "q", "run", "m"}
    waiting_keys = {
        f"chat:{{{hash_user_id(user)}}}:m:{position.message_id}" for user in users for position in queue.positions(user)
    }
    assert {key for key, ms in key_ttls(client).items() if ms == -1 and ":m:" in key} == waiting_keys

    for claim in (running[0], running[2], running[3]):
        queue.finish(claim, [("message", "the end")])
    while claim := queue.claim(NO_WAIT):
        queue.finish(claim, [("message", "the end")])
    assert not client.keys("chat:*:due")

    def remaining_keys() -> list[str]:
        queue.sweep()
        return [key for key in key_ttls(client) if ":m:" not in key and ":c:" not in key and key != "chat:worker"]

    assert eventually(lambda: not remaining_keys(), DEADLINE), remaining_keys()
    assert all(0 < ms <= DAY_MS + 1000 for ms in key_ttls(client).values())


def test_the_number_of_remembered_write_names_is_limited(remote_queue, line, monkeypatch):
    monkeypatch.setattr(writes, "MAX_WRITE_NAMES", 3)
    for number in range(6):
        message = enqueue(remote_queue, f"user-{number}")
        claim = claim_next(remote_queue)
        line.drop_reply_to(message.id.encode())
        with pytest.raises(StorageUnavailable):
            remote_queue.append(claim, [("message", "abandoned")])

    assert len(remote_queue._writes.unknown) <= 3


# Connections.


def count_connections(client: Client) -> int:
    """Returns the number of connections besides the client's own."""
    return len(client.client_list()) - 1


def test_many_readers_share_a_few_connections_which_are_closed_when_idle(open_queue, server, monkeypatch):
    monkeypatch.setattr(redis_pool, "TRIM_INTERVAL_SECONDS", 0.2)
    queue = open_queue(server.url)
    message = enqueue(queue)
    with connect(server.url) as client, ExitStack() as readers:
        for _ in range(500):
            readers.enter_context(queue.subscribe(message.user_id, message.id, lambda: None))
        in_parallel(40, lambda _: [read_log(queue, message) for _ in range(10)])

        assert 2 <= count_connections(client) <= 8
        assert eventually(lambda: read_log(queue, message) and count_connections(client) <= 2, DEADLINE)


def test_a_reader_whose_connection_is_cut_repeatedly_misses_nothing(open_queue, client, monkeypatch):
    monkeypatch.setattr(subscriber, "RECONNECT_SECONDS", 0.01)
    writer, other = open_queue(), open_queue()
    message = enqueue(writer)
    claim = claim_next(writer)

    with read_live(other, message) as received:
        for number in range(100):
            if number % 5 == 0:
                client.client_kill_filter(_type="pubsub")
            writer.append(claim, [("message", str(number))])
        writer.finish(claim, [])

        assert read_to_end(received)[1:-1] == [str(number) for number in range(100)]


def test_a_subscriber_that_cannot_send_reconnects(open_queue, client):
    writer, other = open_queue(), open_queue()
    first, second = enqueue(writer, "ann"), enqueue(writer, "bob")
    with read_live(other, first) as received:
        assert received.get(timeout=DEADLINE)
        other._subscriber._connection._sock.shutdown(1)  # Shuts down sending only: the next command fails at once.

        with read_live(other, second) as received_second:
            assert received_second.get(timeout=DEADLINE)
            for claim in (claim_next(writer), claim_next(writer)):
                writer.finish(claim, [("message", "words")])

            assert read_to_end(received)[0] == read_to_end(received_second)[0] == "words"


def test_an_outage_is_logged_as_one_warning(open_queue, server, monkeypatch, caplog):
    caplog.set_level("DEBUG", subscriber.__name__)
    monkeypatch.setattr(subscriber, "RECONNECT_SECONDS", 0.01)
    queue, woken = open_queue(server.url), threading.Event()

    def levels() -> list[str]:
        return [record.levelname for record in caplog.records if record.message.startswith("not receiving from Redis")]

    message = enqueue(queue)
    with queue.subscribe(message.user_id, message.id, woken.set):
        for _ in range(2):
            assert woken.wait(DEADLINE)
            server.stop()
            assert eventually(lambda: levels()[-4:] == ["WARNING", "DEBUG", "DEBUG", "DEBUG"], DEADLINE), levels()
            woken.clear()
            server.start()
        assert levels().count("WARNING") == 2


@pytest.mark.servers
def test_closing_a_client_closes_its_connections(server):
    with connect(server.url) as client:
        with connect(server.url) as other:
            other.ping()
            assert count_connections(client) == 1

        assert eventually(lambda: count_connections(client) == 0, DEADLINE)


# Several processes.


def test_processes_receive_each_others_events(open_queue, client):
    web, worker = open_queue(), open_queue()
    stopped: stdlib.Queue[str] = stdlib.Queue()
    worker.on_stop(stopped.put)
    assert eventually(lambda: dict(client.pubsub_numsub("chat:stop"))["chat:stop"] == 1, DEADLINE)
    first, second = enqueue(web), enqueue(web)

    with read_live(web, first) as received_first, read_live(web, second) as received_second:
        claim = claim_next(worker)
        worker.append(claim, [("message", "words")])
        web.stop(first.user_id, first.id)
        assert stopped.get(timeout=DEADLINE) == first.id
        assert worker.renew(claim) == "stopped"
        worker.finish(claim, [("message", "the end")])
        worker.finish(claim_next(worker), [])

        assert read_to_end(received_first)[1:3] == ["words", "the end"]
        assert read_to_end(received_second)[-1]
    assert published_positions(web, second) == published_positions(worker, second) == [2, 1]


def test_claim_waits_for_a_message_of_another_process(open_queue):
    web, worker = open_queue(), open_queue()
    claims: stdlib.Queue[Claim | None] = stdlib.Queue()
    waiting = threading.Thread(target=lambda: claims.put(worker.claim(DEADLINE)))
    waiting.start()
    message = enqueue(web)

    assert claims.get(timeout=DEADLINE).message == message
    waiting.join(DEADLINE)


def test_readers_in_a_process_without_a_worker_are_published(open_queue, client, monkeypatch):
    monkeypatch.setattr(presence, "PUBLISH_SECONDS", 0.05)
    web, worker = open_queue(grace=1.0), open_queue(grace=1.0)
    message = enqueue(web, cancel_on_disconnect=True)
    member = f"{hash_user_id(message.user_id)} {message.id}"

    with web.subscribe(message.user_id, message.id, lambda: None):
        scores = {client.zscore(FLEETING, member)}
        assert eventually(lambda: scores.add(client.zscore(FLEETING, member)) or len(scores) > 3, DEADLINE)
    assert None not in scores

    assert eventually(lambda: worker.sweep() or read_log(worker, message).ended, DEADLINE), "the message has no readers"


# Connecting.


@pytest.fixture(scope="module")
def secured(tmp_path_factory) -> Iterator[tuple[RedisServer, str, trustme.CA]]:
    """A Redis with a password and a TLS port, whose certificate is not trusted; its `rediss:` URL; and the CA."""
    folder: Path = tmp_path_factory.mktemp("secured")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))
    port = free_port()
    files = ["--tls-key-file", f"{folder}/key.pem", "--tls-cert-file", f"{folder}/certificate.pem"]
    with RedisServer(folder, "--tls-port", str(port), *files, "--tls-auth-clients", "no", password="s3cret") as server:
        yield server, f"rediss://:s3cret@127.0.0.1:{port}/0", authority


def check_error(url: str, *, verify: bool = True) -> str:
    with pytest.raises(SettingsError) as error:
        check(url, verify=verify)
    return str(error.value)


@pytest.mark.servers
def test_a_refused_login_is_reported_without_the_password(secured):
    server, _, _ = secured
    url = server.url.replace("s3cret", "wr0ng")

    assert check_error(url).startswith(f"REDIS_URL='redis://127.0.0.1:{server.port}/0' cannot be reached: ")
    assert "wr0ng" not in check_error(url)
    check(server.url)


def test_an_unreachable_redis_is_reported_without_the_password():
    url = f"redis://user:s3cret@127.0.0.1:{free_port()}/0?password=s3cret"

    assert "s3cret" not in check_error(url)
    assert check_error(url).startswith(f"REDIS_URL='redis://127.0.0.1:{urlsplit(url).port}/0' cannot be reached: ")


def test_an_untrusted_certificate_is_refused_unless_verification_is_off(secured, open_queue):
    _, url, _ = secured

    assert "certificate" in check_error(url).lower()
    assert "s3cret" not in check_error(url)
    check(url, verify=False)
    queue = RedisQueue(connect(url, verify=False))
    try:
        message = enqueue(queue)
        with read_live(queue, message) as received:
            claim = claim_next(queue)
            queue.finish(claim, [("message", "words")])
            assert read_to_end(received)[1] == "words"
    finally:
        queue.close()


def test_a_trusted_certificate_is_accepted(secured, tmp_path, monkeypatch):
    _, url, authority = secured
    authority.cert_pem.write_to_path(str(tmp_path / "trusted.pem"))
    monkeypatch.setenv(ssl.get_default_verify_paths().openssl_cafile_env, str(tmp_path / "trusted.pem"))

    check(url)


def test_a_message_claimed_as_it_was_enqueued_is_claimed_again_if_its_process_dies(open_queue):
    message = new_message()
    assert open_queue(lease=LEASE).enqueue(message, None, "enqueue", claim=True).claim

    second_claim = open_queue(lease=LEASE).claim(LEASE + REAPED_WITHIN)

    assert (second_claim.message, second_claim.token) == (message, 2)


def test_a_worker_that_dies_after_concluding_delays_the_next_message_by_a_lease(open_queue):
    dying, alive = open_queue(lease=LEASE), open_queue(lease=LEASE)
    message, following = enqueue(dying), enqueue(dying)
    dying.conclude(claim_next(dying), [("message", "the end")])

    assert alive.claim(LEASE + REAPED_WITHIN).message == following
    assert event_types(alive, message) == ["queued", "message", "done"]


def test_a_repeated_conclude_is_written_once(open_queue, line, remote_queue):
    queue = open_queue(f"redis://127.0.0.1:{line.port}/0", lease=LEASE)
    message = enqueue(queue)
    claim = claim_next(queue)
    line.close_after(b"the end")
    with suppress(StorageUnavailable):  # The client library may have retried.
        queue.conclude(claim, [("message", "the end")])

    for _ in range(2):
        open_queue(lease=LEASE).conclude(claim, [("message", "the end")])

    assert event_types(open_queue(), message) == ["queued", "message", "done"]


def test_a_dead_workers_repeatable_message_restarts(open_queue):
    dying, alive = open_queue(lease=LEASE), open_queue(lease=LEASE)
    message = enqueue(dying, repeatable=True)
    dying.append(claim_next(dying), [("message", "one")])

    second_claim = alive.claim(LEASE + REAPED_WITHIN)

    assert (second_claim.message, second_claim.token) == (message, 2)
    assert '{"type":"restart"}' in message_texts(alive, message)
