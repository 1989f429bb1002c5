"""What only the queue in Redis has: leases, lines that break, many processes, and keys that must not stay."""

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

from bff.broker.queue import redis as redis_queue
from bff.broker.queue.base import Claim, LeaseLost, Limits, Message, QueuePosition
from bff.broker.queue.redis import CLAIMS_MOST, WORKER, RedisQueue, presence, subscriber
from bff.broker.queue.redis.presence import FLEETING
from bff.broker.queue.redis.schedule import DUE
from bff.errors import IdempotencyConflict, ServerFull, SettingsError, StorageUnavailable, TooManyRequests
from bff.ops import redis as redis_door
from bff.ops import redis_limits
from bff.ops.rate_limiter import RateLimiter
from bff.ops.redis import Client, check, connect, key_of
from bff.ops.redis_limits import RedisLimits
from tests.broker.queue.queues import AT_ONCE, claimed, left, message, positions, types, whole
from tests.live import DEADLINE, eventually, free_port, in_parallel
from tests.redis_server import RedisServer

LEASE = 0.3
LONG = 60.0
"""A lease that does not end while a test runs."""
REAPED_WITHIN = 5.0
"""Seconds after a lease's end."""
DAY_MS = 24 * 3600 * 1000

Open = Callable[..., RedisQueue]


@pytest.fixture
def open_queue(clean_redis) -> Iterator[Open]:
    """`open_queue(lease=0.3)`: what one more process has."""
    opened: list[RedisQueue] = []

    def one(url: str = clean_redis.url, lease: float = LONG, **limits: float) -> RedisQueue:
        opened.append(RedisQueue(connect(url), Limits(**limits), lease))
        return opened[-1]

    yield one
    for queue in opened:
        with suppress(StorageUnavailable):
            queue.close()


@pytest.fixture
def client(clean_redis) -> Iterator[Client]:
    with connect(clean_redis.url) as client:
        yield client


@pytest.fixture
def far(open_queue, line) -> RedisQueue:
    """At the far end of a line that may break. It has written before: Redis knows its scripts."""
    queue = open_queue(f"redis://127.0.0.1:{line.port}/0")
    left(queue, "warm-up")
    claim = claimed(queue)
    queue.append(claim, [("message", "warm-up")])
    queue.finish(claim, [])
    left(queue, "warm-up")
    queue.release(claimed(queue))
    queue.stop("warm-up", queue.positions("warm-up")[0].message_id)
    return queue


def texts(queue: RedisQueue, said: Message) -> list[str]:
    return [event.data for event in whole(queue, said).events if event.event == "message"]


def keys(client: Client) -> dict[str, int]:
    """Each with the milliseconds after which it goes; -1: never."""
    return {key: left for key in client.scan_iter() if (left := client.pttl(key)) != -2}


@contextmanager
def read_live(queue: RedisQueue, said: Message) -> Iterator["stdlib.Queue[str]"]:
    """What somebody who follows the message is told, as it comes; "" after its end."""
    told: stdlib.Queue[str] = stdlib.Queue()
    rung, over = threading.Semaphore(0), threading.Event()

    def follow() -> None:
        after = ""
        with queue.subscribe(said.user_id, said.id, rung.release):
            while not over.is_set():
                rung.acquire()
                with suppress(StorageUnavailable):
                    page = queue.read(said.user_id, said.id, after)
                    for event in page.events:
                        told.put(event.data)
                        after = event.id
                    if page.over:
                        told.put("")
                        return

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    try:
        yield told
    finally:
        over.set()
        rung.release()
        reader.join(DEADLINE)
    assert not reader.is_alive()


def until_over(told: "stdlib.Queue[str]") -> list[str]:
    return list(iter(lambda: told.get(timeout=DEADLINE), ""))


# Leases.


def test_what_a_dead_worker_had_not_begun_to_say_runs_again(open_queue):
    dead, alive = open_queue(lease=LEASE), open_queue(lease=LEASE)
    said = left(dead)
    first = claimed(dead)
    dead.append(first, [("processing", "")], started=False)

    second = alive.claim(LEASE + REAPED_WITHIN)

    assert second is not None
    assert second.message == said
    assert second.token > first.token


def test_what_a_dead_worker_had_begun_to_say_ends_and_the_next_message_runs(open_queue):
    dead, alive = open_queue(lease=LEASE), open_queue(lease=LEASE)
    said, following = left(dead), left(dead)
    dead.append(claimed(dead), [("message", "so f")])

    second = alive.claim(LEASE + REAPED_WITHIN)

    assert second is not None
    assert second.message == following
    assert texts(alive, said)[0] == "so f"
    assert '"interrupted"' in texts(alive, said)[1]
    assert types(alive, said)[-1] == "done"


def test_what_a_dead_worker_was_told_to_stop_ends_stopped(open_queue):
    dead, alive = open_queue(lease=LEASE), open_queue(lease=LEASE)
    said = left(dead)
    claimed(dead)
    alive.stop(said.user_id, said.id)

    assert eventually(lambda: alive.claim(AT_ONCE) is None and whole(alive, said).over, LEASE + REAPED_WITHIN)
    assert '"stopped"' in texts(alive, said)[0]


@pytest.mark.parametrize("spoken", [False, True])
def test_a_worker_that_wakes_after_its_lease_changes_nothing(open_queue, spoken):
    frozen, alive = open_queue(lease=LEASE), open_queue(lease=LEASE)
    said, following = left(frozen), left(frozen)
    claim = claimed(frozen)
    if spoken:
        frozen.append(claim, [("message", "so f")])
    next_claim = alive.claim(LEASE + REAPED_WITHIN)
    assert next_claim is not None
    assert next_claim.message == (following if spoken else said)
    before, positions = whole(alive, said), alive.positions(said.user_id)

    for late in late_writes(frozen, claim):
        with pytest.raises(LeaseLost):
            late()

    assert whole(alive, said) == before
    assert alive.positions(said.user_id) == positions
    alive.finish(next_claim, [])


def late_writes(queue: RedisQueue, claim: Claim) -> list[Callable[[], object]]:
    return [
        lambda: queue.append(claim, [("message", "too late")]),
        lambda: queue.append(claim, [("processing", "")], started=False),
        lambda: queue.renew(claim),
        lambda: queue.finish(claim, [("message", "too late")]),
        lambda: queue.release(claim),
    ]


def test_a_sign_of_life_keeps_a_silent_claim(open_queue, client):
    queue = open_queue(lease=LONG)
    said = left(queue)
    claim = claimed(queue)
    run = f"chat:{{{key_of(said.user_id)}}}:run"
    client.hset(run, "until", int(client.hget(run, "until")) - 59_500_000)  # As if nearly all of it were over.

    assert queue.renew(claim) is None

    assert int(client.hget(run, "until")) > time.time() * 1_000_000 + 30_000_000
    queue.append(claim, [("message", "still here")])


def test_a_late_worker_whose_message_nobody_took_goes_on(open_queue):
    queue = open_queue(lease=0.01)
    said = left(queue)
    claim = claimed(queue)
    time.sleep(0.02)  # Longer than the lease.

    queue.append(claim, [("message", "slow, ")])
    queue.finish(claim, [("message", "but whole")])

    assert texts(queue, said) == ["slow, ", "but whole"]


def test_a_message_that_takes_each_of_its_workers_along_ends(open_queue):
    queue = open_queue(lease=0.05)
    said = left(queue)

    claims = [queue.claim(REAPED_WITHIN) for _ in range(CLAIMS_MOST)]

    assert [claim.token for claim in claims if claim] == [1, 2, 3, 4, 5]
    assert eventually(lambda: queue.claim(AT_ONCE) is None and whole(queue, said).over, REAPED_WITHIN)
    assert '"interrupted"' in texts(queue, said)[0]


# Lines that break at the worst moment.


def test_words_whose_receipt_was_lost_are_written_once(far, line):
    said = left(far)
    claim = claimed(far)

    line.lose_the_answer_to(b"the words")
    with pytest.raises(StorageUnavailable):
        far.append(claim, [("message", "the words")])
    far.append(claim, [("message", "the words")])
    for _ in range(2):
        far.append(claim, [("message", "again")])
    far.finish(claim, [])

    assert line.losses == 1
    assert texts(far, said) == ["the words", "again", "again"]


def test_an_end_whose_receipt_was_lost_is_written_once_and_the_next_message_runs_at_once(far, line):
    said, following = left(far), left(far)
    claim = claimed(far)

    line.lose_the_answer_to(b"the end")
    with pytest.raises(StorageUnavailable):
        far.finish(claim, [("message", "the end")])
    far.finish(claim, [("message", "the end")])

    assert line.losses == 1
    assert types(far, said) == ["queued", "message", "done"]
    assert far.claim(AT_ONCE).message == following
    with pytest.raises(LeaseLost):
        far.finish(claim, [("message", "another end")])


def test_a_message_that_was_handed_back_without_a_receipt_runs_at_once(far, line, open_queue):
    said = left(far)
    claim = claimed(far)

    line.lose_the_answer_to(b'"interrupted"')  # Which is among what a release says.
    with pytest.raises(StorageUnavailable):
        far.release(claim)
    with pytest.raises(LeaseLost):
        far.release(claim)

    again = open_queue().claim(AT_ONCE)
    assert (again.message, again.token) == (said, claim.token + 1)


def test_a_claim_that_was_lost_on_its_way_runs_again(open_queue, line, far):
    queue = open_queue(f"redis://127.0.0.1:{line.port}/0", lease=LEASE)
    said = left(far)

    line.lose_the_answer_to(b'"interrupted"')
    with pytest.raises(StorageUnavailable):
        queue.claim(AT_ONCE)

    again = open_queue(lease=LEASE).claim(LEASE + REAPED_WITHIN)
    assert again is not None
    assert (again.message, again.token) == (said, 2)


def test_a_message_whose_ticket_was_lost_is_kept_once(far, line):
    said = message(text="the question")

    line.lose_the_answer_to(b"the question")
    with pytest.raises(StorageUnavailable):
        far.enqueue(said, "client's own", "enqueue")
    ticket = far.enqueue(said._replace(id="another"), "client's own", "enqueue")

    assert ticket.message_id == said.id
    assert far.positions(said.user_id) == [QueuePosition(said.id, "queued", 1)]
    with pytest.raises(IdempotencyConflict):
        far.enqueue(message(text="another question"), "client's own", "enqueue")


def test_a_process_that_dies_after_it_kept_a_message_delays_it_by_a_lease_at_most(open_queue, line, far):
    queue = open_queue(f"redis://127.0.0.1:{line.port}/0", lease=LEASE)
    said = message(text="the question")

    line.be_cut_after(b"the question")
    queue.enqueue(said, None, "enqueue")

    claim = open_queue(lease=LEASE).claim(LEASE + REAPED_WITHIN)
    assert claim is not None
    assert claim.message == said


def test_a_process_that_dies_after_an_end_delays_the_next_message_by_a_lease_at_most(open_queue, line, far):
    queue = open_queue(f"redis://127.0.0.1:{line.port}/0", lease=LEASE)
    said, following = left(queue), left(queue)
    claim = claimed(queue)

    line.be_cut_after(b"the end")
    with pytest.raises(StorageUnavailable):
        queue.finish(claim, [("message", "the end")])

    alive = open_queue(lease=LEASE)
    assert whole(alive, said).over
    assert alive.claim(LEASE + REAPED_WITHIN).message == following


def test_an_answer_for_its_readers_only_is_stopped_though_its_process_died_as_it_was_kept(open_queue, line, far):
    queue = open_queue(f"redis://127.0.0.1:{line.port}/0", grace=0.1)
    said = message(text="the question", cancel_on_disconnect=True)

    line.be_cut_after(b"the question")
    queue.enqueue(said, None, "enqueue")

    alive = open_queue(grace=0.1)
    assert eventually(lambda: alive.sweep() or whole(alive, said).over, DEADLINE)


def test_of_several_that_nobody_reads_none_is_forgotten_where_the_line_breaks(open_queue, line, client):
    far, near = open_queue(f"redis://127.0.0.1:{line.port}/0", grace=0.1), open_queue(grace=0.1)
    said = [left(near, f"user-{number}", cancel_on_disconnect=True) for number in range(3)]
    far.sweep()
    time.sleep(0.2)  # Longer than the grace: all of them are due.

    line.lose_the_answer_to(said[1].id.encode())
    with pytest.raises(StorageUnavailable):
        far.sweep()
    far.sweep()

    assert [whole(near, one).over for one in said] == [True, True, True]
    assert not client.exists(FLEETING)


def test_a_sign_that_somebody_reads_is_given_again_after_whatever_went_wrong(open_queue, client, monkeypatch, caplog):
    monkeypatch.setattr(presence, "TELL_SECONDS", 0.02)
    queue = open_queue(grace=0.5)
    said = left(queue, cancel_on_disconnect=True)
    member = f"{key_of(said.user_id)} {said.id}"

    with queue.subscribe(said.user_id, said.id, lambda: None):
        client.rename(FLEETING, "kept")
        client.set(FLEETING, "of another type")
        assert eventually(lambda: "readers could not be told of" in caplog.text, DEADLINE)
        client.rename("kept", FLEETING)
        score = client.zscore(FLEETING, member)
        assert eventually(lambda: client.zscore(FLEETING, member) > score, DEADLINE)


def test_a_users_streams_are_renewed_after_whatever_went_wrong(client, monkeypatch, caplog):
    monkeypatch.setattr(redis_limits, "GIVEN_UP_SECONDS", 0.06)
    shared, key = RedisLimits(client, streams=5, per_minute=1), f"chat:{{{key_of('ann')}}}:streams"
    stream = shared.acquire_stream("ann")
    client.set(key, "of another type")
    assert eventually(lambda: "could not be renewed" in caplog.text, DEADLINE)

    client.delete(key)

    assert eventually(lambda: client.zscore(key, stream), DEADLINE)
    shared.leave("ann", stream)


def test_who_is_refused_elsewhere_is_not_counted_here(client):
    elsewhere, here = (RateLimiter(2, RedisLimits(client, streams=1, per_minute=2)) for _ in range(2))
    for _ in range(2):
        elsewhere.count("ann")

    for _ in range(5):
        with pytest.raises(TooManyRequests):
            here.count("ann")
    client.flushall()

    here.count("ann")


def test_who_is_refused_here_is_not_counted_elsewhere(client):
    elsewhere = RedisLimits(client, streams=1, per_minute=3)
    here = RateLimiter(1, elsewhere)
    here.count("ann")

    for _ in range(5):
        with pytest.raises(TooManyRequests):
            here.count("ann")

    for _ in range(2):
        elsewhere.count("ann")


def test_who_looked_before_a_message_came_does_not_make_it_forgotten(open_queue, client):
    """A worker finds nothing for a user and is slow to say so; in between, a message comes."""
    queue = open_queue(lease=0.001)
    user = key_of("ann")
    client.zadd(DUE, {user: 1})
    _, till = queue._due.take()
    time.sleep(0.01)  # Longer than the lease.

    said = left(queue)
    queue._due.settle(user, till)

    assert queue.claim(AT_ONCE).message == said


# Redis goes, and comes back.


@pytest.fixture
def server(tmp_path) -> Iterator[RedisServer]:
    """One that a test may stop. What it was told outlives it."""
    with RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "no") as server:  # Else a busy disk delays its writing.
        yield server


@pytest.mark.parametrize("number", [15, 9])
def test_a_redis_that_was_started_again_goes_on_where_it_was(open_queue, server, number):
    queue, other = open_queue(server.url), open_queue(server.url)
    said, following = left(queue), left(queue)
    claim = claimed(queue)
    queue.append(claim, [("message", "before, ")])

    with read_live(other, said) as told:
        assert told.get(timeout=DEADLINE)
        server.stop(number)
        with pytest.raises(StorageUnavailable):
            queue.append(claim, [("message", "after")])
        with pytest.raises(StorageUnavailable):
            other.positions(said.user_id)
        server.start()
        queue.append(claim, [("message", "after")])
        queue.finish(claim, [])

        assert until_over(told) == ["before, ", "after", f'{{"message_id": "{said.id}"}}']
    assert claimed(other).message == following


def test_a_redis_that_was_started_without_its_memory_is_an_empty_queue(open_queue, tmp_path):
    with RedisServer(tmp_path) as server:
        queue = open_queue(server.url)
        left(queue)
        claim = claimed(queue)
        server.stop()
        server.start()

        with pytest.raises(LeaseLost):
            queue.renew(claim)
        said = left(queue)
        assert claimed(queue).message == said


def test_scripts_that_redis_forgot_are_told_again(open_queue, client):
    queue = open_queue()
    said = left(queue)
    claim = claimed(queue)
    client.script_flush()

    queue.append(claim, [("message", "words")])
    client.script_flush()
    queue.finish(claim, [])

    assert texts(queue, said) == ["words"]


def test_a_redis_that_says_nothing_is_away_until_it_does(open_queue, server, monkeypatch):
    monkeypatch.setattr(redis_door, "SECONDS", 0.3)
    monkeypatch.setattr(subscriber, "PING_SECONDS", 0.3)
    queue, other = open_queue(server.url), open_queue(server.url)
    said = left(queue)
    claim = claimed(queue)

    with read_live(other, said) as told:
        assert told.get(timeout=DEADLINE)
        server.freeze()
        with pytest.raises(StorageUnavailable):
            queue.append(claim, [("message", "words")])
        with pytest.raises(StorageUnavailable):
            other.positions(said.user_id)
        server.thaw()
        assert eventually(lambda: answers(queue), DEADLINE)
        queue.append(claim, [("message", "words")])
        queue.finish(claim, [])

        assert until_over(told) == ["words", f'{{"message_id": "{said.id}"}}']


def answers(queue: RedisQueue) -> bool:
    with suppress(StorageUnavailable):
        queue.counts()
        return True
    return False


def test_a_redis_that_follows_another_takes_nothing_until_it_leads_again(open_queue, server):
    queue = open_queue(server.url)
    said = left(queue)
    claim = claimed(queue)
    with connect(server.url) as client:
        client.config_set("replica-serve-stale-data", "no")
        client.replicaof("127.0.0.1", free_port())
        for ask in (lambda: queue.append(claim, [("message", "words")]), lambda: whole(queue, said), queue.sweep):
            with pytest.raises(StorageUnavailable):
                ask()
        client.config_set("replica-serve-stale-data", "yes")
        with pytest.raises(StorageUnavailable):
            queue.append(claim, [("message", "words")])
        client.replicaof("no", "one")

    queue.append(claim, [("message", "words")])
    assert texts(queue, said) == ["words"]


@pytest.mark.servers
def test_limits_are_each_process_own_while_redis_says_nothing(server, monkeypatch):
    monkeypatch.setattr(redis_door, "SECONDS", 0.2)
    with connect(server.url) as client:
        limits = RedisLimits(client, streams=1, per_minute=1)
        stream = limits.acquire_stream("ann")
        server.freeze()

        for _ in range(20):
            limits.count("ann")
            limits.leave("ann", limits.acquire_stream("ann"))

        limits.leave("ann", stream)


def test_a_full_redis_takes_nothing_new_and_ends_what_it_has(open_queue, client):
    queue = open_queue()
    told: stdlib.Queue[str] = stdlib.Queue()
    queue.on_stop(told.put)
    said, waiting = left(queue), left(queue)
    claim = claimed(queue)
    other = left(queue, "bob")
    others = claimed(queue)
    assert eventually(lambda: dict(client.pubsub_numsub("chat:stop"))["chat:stop"] == 1, DEADLINE)

    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(ServerFull):
            left(queue, "cy")
        with pytest.raises(ServerFull):
            queue.append(claim, [("message", "words")])
        assert queue.renew(claim) is None, "a worker that lives keeps its claim"
        queue.stop(other.user_id, other.id)
        assert told.get(timeout=DEADLINE) == other.id
        assert queue.renew(others) == "stopped"
        queue.stop(waiting.user_id, waiting.id)
        queue.finish(others, [("message", "its end")])
        queue.release(claim)
        queue.sweep()
        claim = claimed(queue)
        assert claim.message == said
    finally:
        client.config_set("maxmemory", 0)
    queue.append(claim, [("message", "words")])
    queue.finish(claim, [])

    assert texts(queue, said) == ["words"]
    assert texts(queue, other) == ["its end"]
    assert whole(queue, waiting).over
    assert queue.positions("cy") == []
    left(queue, "cy")


# Keys.


def test_only_queues_have_no_end_and_after_retention_little_is_left(open_queue, client):
    queue = open_queue(retention=1.0, grace=0.1)
    users = [f"user-{number}" for number in range(5)]
    for number, user in enumerate(users * 4):
        queue.enqueue(message(user), f"client's own {number}", "enqueue")
        left(queue, user, cancel_on_disconnect=number % 2 == 0)
    running = [claimed(queue) for _ in users]
    for claim in running[:4]:
        queue.append(claim, [("message", "words")])
    left(queue, users[0], on_busy="interrupt")
    queue.stop(users[1], queue.positions(users[1])[1].message_id)
    queue.release(running[1])
    queue.release(running[4])

    lasting = {key.rpartition(":")[2] if ":m:" not in key else "m" for key, ms in keys(client).items() if ms == -1}
    assert lasting == {"due", "fleeting", "q", "run", "m"}
    waiting = {f"chat:{{{key_of(user)}}}:m:{place.message_id}" for user in users for place in queue.positions(user)}
    assert {key for key, ms in keys(client).items() if ms == -1 and ":m:" in key} == waiting

    for claim in (running[0], running[2], running[3]):
        queue.finish(claim, [("message", "the end")])
    while claim := queue.claim(AT_ONCE):
        queue.finish(claim, [("message", "the end")])
    assert not client.exists(DUE)

    def left_over() -> list[str]:
        queue.sweep()
        return [key for key in keys(client) if ":m:" not in key and ":c:" not in key and key != WORKER]

    assert eventually(lambda: not left_over(), DEADLINE), left_over()
    assert all(0 < ms <= DAY_MS + 1000 for ms in keys(client).values())


def test_what_a_process_remembers_of_its_claims_is_bounded(far, line, monkeypatch):
    monkeypatch.setattr(redis_queue, "WRITES_MOST", 3)
    for number in range(6):
        said = left(far, f"user-{number}")
        claim = claimed(far)
        line.lose_the_answer_to(said.id.encode())
        with pytest.raises(StorageUnavailable):
            far.append(claim, [("message", "given up")])

    assert len(far._writing) <= 3


# Connections.


def connections(client: Client) -> int:
    """But for the one that asks."""
    return len(client.client_list()) - 1


def test_many_readers_share_a_few_connections_which_are_closed_again(open_queue, server, monkeypatch):
    monkeypatch.setattr(redis_door, "SPARE_SECONDS", 0.2)
    queue = open_queue(server.url)
    said = left(queue)
    with connect(server.url) as client, ExitStack() as readers:
        for _ in range(500):
            readers.enter_context(queue.subscribe(said.user_id, said.id, lambda: None))
        in_parallel(40, lambda _: [whole(queue, said) for _ in range(10)])

        assert 2 <= connections(client) <= 8
        assert eventually(lambda: whole(queue, said) and connections(client) <= 2, DEADLINE)


def test_a_reader_whose_connection_is_cut_again_and_again_misses_nothing(open_queue, client, monkeypatch):
    monkeypatch.setattr(subscriber, "AGAIN_SECONDS", 0.01)
    writer, other = open_queue(), open_queue()
    said = left(writer)
    claim = claimed(writer)

    with read_live(other, said) as told:
        for number in range(100):
            if number % 5 == 0:
                client.client_kill_filter(_type="pubsub")
            writer.append(claim, [("message", str(number))])
        writer.finish(claim, [])

        assert until_over(told)[1:-1] == [str(number) for number in range(100)]


def test_a_listener_that_cannot_send_begins_anew(open_queue, client):
    writer, other = open_queue(), open_queue()
    first, second = left(writer, "ann"), left(writer, "bob")
    with read_live(other, first) as told:
        assert told.get(timeout=DEADLINE)
        other._listener._connection._sock.shutdown(1)  # Its own half: the next word fails at once.

        with read_live(other, second) as told_second:
            assert told_second.get(timeout=DEADLINE)
            for claim in (claimed(writer), claimed(writer)):
                writer.finish(claim, [("message", "words")])

            assert until_over(told)[0] == until_over(told_second)[0] == "words"


def test_an_absence_is_warned_of_once(open_queue, server, monkeypatch, caplog):
    caplog.set_level("DEBUG", subscriber.__name__)
    monkeypatch.setattr(subscriber, "AGAIN_SECONDS", 0.01)
    queue, rung = open_queue(server.url), threading.Event()

    def levels() -> list[str]:
        return [record.levelname for record in caplog.records if record.message.startswith("not hearing Redis")]

    said = left(queue)
    with queue.subscribe(said.user_id, said.id, rung.set):
        for _ in range(2):
            assert rung.wait(DEADLINE)
            server.stop()
            assert eventually(lambda: levels()[-4:] == ["WARNING", "DEBUG", "DEBUG", "DEBUG"], DEADLINE), levels()
            rung.clear()
            server.start()
        assert levels().count("WARNING") == 2


@pytest.mark.servers
def test_who_closes_a_client_closes_its_connections(server):
    with connect(server.url) as client:
        with connect(server.url) as other:
            other.ping()
            assert connections(client) == 1

        assert eventually(lambda: connections(client) == 0, DEADLINE)


# Two processes.


def test_one_process_hears_what_happens_in_the_other(open_queue, client):
    web, worker = open_queue(), open_queue()
    stopped: stdlib.Queue[str] = stdlib.Queue()
    worker.on_stop(stopped.put)
    assert eventually(lambda: dict(client.pubsub_numsub("chat:stop"))["chat:stop"] == 1, DEADLINE)
    first, second = left(web), left(web)

    with read_live(web, first) as told_first, read_live(web, second) as told_second:
        claim = claimed(worker)
        worker.append(claim, [("message", "words")])
        web.stop(first.user_id, first.id)
        assert stopped.get(timeout=DEADLINE) == first.id
        assert worker.renew(claim) == "stopped"
        worker.finish(claim, [("message", "the end")])
        worker.finish(claimed(worker), [])

        assert until_over(told_first)[1:3] == ["words", "the end"]
        assert until_over(told_second)[-1]
    assert positions(web, second) == positions(worker, second) == [2, 1]


def test_a_claim_waits_for_what_another_process_is_left(open_queue):
    web, worker = open_queue(), open_queue()
    found: stdlib.Queue[Claim | None] = stdlib.Queue()
    waiting = threading.Thread(target=lambda: found.put(worker.claim(DEADLINE)))
    waiting.start()
    said = left(web)

    assert found.get(timeout=DEADLINE).message == said
    waiting.join(DEADLINE)


def test_a_reader_in_a_process_that_only_streams_is_there(open_queue, client, monkeypatch):
    monkeypatch.setattr(presence, "TELL_SECONDS", 0.05)
    web, worker = open_queue(grace=1.0), open_queue(grace=1.0)
    said = left(web, cancel_on_disconnect=True)
    member = f"{key_of(said.user_id)} {said.id}"

    with web.subscribe(said.user_id, said.id, lambda: None):
        seen = {client.zscore(FLEETING, member)}
        assert eventually(lambda: seen.add(client.zscore(FLEETING, member)) or len(seen) > 3, DEADLINE)
    assert None not in seen

    assert eventually(lambda: worker.sweep() or whole(worker, said).over, DEADLINE), "nobody reads any more"


# Reaching it.


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Iterator[tuple[RedisServer, str, trustme.CA]]:
    """A Redis with a password, and with TLS on another port, whose certificate nobody here trusts."""
    folder: Path = tmp_path_factory.mktemp("guarded")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))
    port = free_port()
    files = ["--tls-key-file", f"{folder}/key.pem", "--tls-cert-file", f"{folder}/certificate.pem"]
    with RedisServer(folder, "--tls-port", str(port), *files, "--tls-auth-clients", "no", password="s3cret") as server:
        yield server, f"rediss://:s3cret@127.0.0.1:{port}/0", authority


def refusal(url: str, *, verify: bool = True) -> str:
    with pytest.raises(SettingsError) as refused:
        check(url, verify=verify)
    return str(refused.value)


@pytest.mark.servers
def test_a_redis_that_lets_nobody_in_is_named_without_the_password(guarded):
    server, _, _ = guarded
    url = server.url.replace("s3cret", "wr0ng")

    assert refusal(url).startswith(f"REDIS_URL='redis://127.0.0.1:{server.port}/0' cannot be reached: ")
    assert "wr0ng" not in refusal(url)
    check(server.url)


def test_a_redis_that_is_not_there_is_named_without_the_password():
    url = f"redis://user:s3cret@127.0.0.1:{free_port()}/0?password=s3cret"

    assert "s3cret" not in refusal(url)
    assert refusal(url).startswith(f"REDIS_URL='redis://127.0.0.1:{urlsplit(url).port}/0' cannot be reached: ")


def test_a_certificate_that_nobody_vouches_for_is_refused_unless_it_is_not_looked_at(guarded, open_queue):
    _, url, _ = guarded

    assert "certificate" in refusal(url).lower()
    assert "s3cret" not in refusal(url)
    check(url, verify=False)
    queue = RedisQueue(connect(url, verify=False))
    try:
        said = left(queue)
        with read_live(queue, said) as told:
            claim = claimed(queue)
            queue.finish(claim, [("message", "words")])
            assert until_over(told)[1] == "words"
    finally:
        queue.close()


def test_a_certificate_that_the_machine_trusts_is_taken(guarded, tmp_path, monkeypatch):
    _, url, authority = guarded
    authority.cert_pem.write_to_path(str(tmp_path / "trusted.pem"))
    monkeypatch.setenv(ssl.get_default_verify_paths().openssl_cafile_env, str(tmp_path / "trusted.pem"))

    check(url)


def test_what_was_claimed_as_it_was_enqueued_is_claimed_again_when_its_process_dies(open_queue):
    said = message()
    assert open_queue(lease=LEASE).enqueue(said, None, "enqueue", claim=True).claim

    again = open_queue(lease=LEASE).claim(LEASE + REAPED_WITHIN)

    assert (again.message, again.token) == (said, 2)


def test_a_worker_that_dies_after_it_concluded_delays_the_next_message_by_a_lease_at_most(open_queue):
    dying, alive = open_queue(lease=LEASE), open_queue(lease=LEASE)
    said, following = left(dying), left(dying)
    dying.conclude(claimed(dying), [("message", "the end")])

    assert alive.claim(LEASE + REAPED_WITHIN).message == following
    assert types(alive, said) == ["queued", "message", "done"]


def test_a_conclusion_whose_receipt_was_lost_is_made_once(open_queue, line, far):
    queue = open_queue(f"redis://127.0.0.1:{line.port}/0", lease=LEASE)
    said = left(queue)
    claim = claimed(queue)
    line.be_cut_after(b"the end")
    with suppress(StorageUnavailable):  # The client may have tried again.
        queue.conclude(claim, [("message", "the end")])

    for _ in range(2):
        open_queue(lease=LEASE).conclude(claim, [("message", "the end")])

    assert types(open_queue(), said) == ["queued", "message", "done"]


def test_a_repeatable_answer_whose_worker_died_begins_anew(open_queue):
    dying, alive = open_queue(lease=LEASE), open_queue(lease=LEASE)
    said = left(dying, repeatable=True)
    dying.append(claimed(dying), [("message", "one")])

    again = alive.claim(LEASE + REAPED_WITHIN)

    assert (again.message, again.token) == (said, 2)
    assert '{"type":"restart"}' in texts(alive, said)
