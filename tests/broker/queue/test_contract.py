"""The contract of `Queue`: every implementation passes this suite."""

import json
import queue as stdlib
import sys
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bff.broker.queue.base import PAGE_EVENTS, Claim, Counts, LeaseLost, Limits, Message, Page, Queue, QueuePosition, Receipt
from bff.broker.queue.deliveries import FAILED_SECONDS, Delivery, delivery_id, webhook_of
from bff.broker.queue.journal import Journal
from bff.broker.queue.memory import MemoryQueue
from bff.broker.queue.redis import RedisQueue
from bff.broker.queue.redis.logs import RESTART
from bff.errors import Busy, Expired, IdempotencyConflict, InvalidRequest, NotFound, ServerFull, TooLarge, TooManyRequests
from bff.ops.redis import Client, connect
from bff.upstream.message_ids import group_mark_of, new_id
from tests.broker.queue.queues import NO_WAIT, claim_next, enqueue, event_types, new_message, published_positions, read_log
from tests.live import DEADLINE, eventually
from tests.redis_server import RedisServer
from tests.redis_sets import RedisSet, count_subscribers

DAY = 24 * 3600
MAX_LIVE_EXAMPLES = 20
"""Of random sequences of calls: each call takes much longer in distributed forms, and "appendonly" runs the code of "redis"."""

Factory = Callable[..., Queue]


class Clock:
    """A clock that a test advances."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class InMemory:
    def __init__(self) -> None:
        self.clock = Clock()

    def make(self, **limits: float) -> Queue:
        return MemoryQueue(Limits(**limits), self.clock)

    def close(self) -> None:
        pass


class InMemoryWithJournal:
    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self._folder = folder
        self._made: list[MemoryQueue] = []

    def make(self, **limits: float) -> Queue:
        journal = Journal(self._folder / f"queue-{len(self._made)}.db")
        self._made.append(MemoryQueue(Limits(**limits), self.clock, journal))
        self._made[-1].open()
        return self._made[-1]

    def close(self) -> None:
        for queue in self._made:
            queue.close()


class InRedis:
    def __init__(self, server: RedisServer | RedisSet, max_examples: float) -> None:
        self.client = connect(server.url)
        self.is_distributed = isinstance(server, RedisSet)
        self.examples = 0
        self.max_examples = max_examples
        self.clock = RedisClock(self.client)
        self._server = server
        self._made: list[RedisQueue] = []

    def make(self, **limits: float) -> Queue:
        self.client.flushall()
        queue = RedisQueue(connect(self._server.url), Limits(**limits))
        self._made.append(queue)
        queue.on_stop(lambda *_: None)
        assert eventually(lambda: count_subscribers(self._server, "chat:stop") == len(self._made), DEADLINE)
        return queue

    def close(self) -> None:
        for queue in self._made:
            queue.close()
        self.client.close()


class RedisClock:
    """Redis's clock cannot be moved, so this shortens expiries and deadlines instead."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def advance(self, seconds: float) -> None:
        for key in self._client.scan_iter() if seconds > 0 else ():
            if (ttl := self._client.pttl(key)) >= 0:
                self._client.pexpire(key, max(0, ttl - int(seconds * 1000)))
        for key in self._client.scan_iter("chat:{*}:fleeting"):
            self._move(key, seconds)
        for key in self._client.scan_iter("chat:{*}:hooks*"):
            if self._client.type(key) == "zset":
                self._move(key, seconds)
                continue
            for lane, lease in self._client.hgetall(key).items():
                if lane.startswith("l:"):
                    end, token = lease.split(" ")
                    self._client.hset(key, lane, f"{int(end) - int(seconds * 1_000_000)} {token}")

    def _move(self, key: str, seconds: float) -> None:
        for member in self._client.zrange(key, 0, -1):
            self._client.zincrby(key, -seconds * 1_000_000, member)


LIVE_FORMS = ("sentinels", "cluster", "appendonly")
FORMS = ["memory", "journal", "redis", *[pytest.param(name, marks=pytest.mark.live) for name in LIVE_FORMS]]


@pytest.fixture(params=FORMS)
def implementation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    made: InMemory | InMemoryWithJournal | InRedis
    if request.param == "memory":
        made = InMemory()
    elif request.param == "journal":
        made = InMemoryWithJournal(tmp_path)
    else:
        made = InRedis(request.getfixturevalue(request.param), MAX_LIVE_EXAMPLES if request.param in LIVE_FORMS else inf)
    yield made
    made.close()


@pytest.fixture
def clock(implementation) -> Any:
    return implementation.clock


@pytest.fixture
def make(implementation) -> Factory:
    """`make(depth_per_user=2)`: an empty queue with these limits."""
    return implementation.make


@pytest.fixture
def queue(make) -> Queue:
    return make()


@pytest.fixture
def frequent_thread_switches() -> Iterator[None]:
    """Switches threads as often as possible."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def enqueue_and_finish(queue: Queue, user_id: str = "ann", text: str = "") -> Message:
    """Enqueues and finishes a message; no other may be waiting."""
    message = enqueue(queue, user_id)
    queue.finish(claim_next(queue), [("message", text)])
    return message


def record_stops(queue: Queue) -> "stdlib.Queue[str]":
    stop_calls: stdlib.Queue[str] = stdlib.Queue()
    queue.on_stop(lambda message_id, _: stop_calls.put(message_id))
    return stop_calls


def assert_no_more_stops(queue: Queue, stop_calls: "stdlib.Queue[str]") -> None:
    """Stops a message of its own, whose call would come after any other."""
    last = enqueue(queue, "somebody else")
    while claim_next(queue).message.id != last.id:
        pass
    queue.stop(last.user_id, last.id)

    assert stop_calls.get(timeout=DEADLINE) == last.id


# Lifecycle.


def test_a_queue_takes_writes_while_it_drains_and_can_be_read_afterwards(queue):
    queue.open()
    message = enqueue(queue)

    with queue.draining():
        queue.check_writes()
        queue.finish(claim_next(queue), [("message", "bye")])

    assert read_log(queue, message).ended


# Order.


def test_a_users_messages_are_claimed_in_order(queue):
    messages = [enqueue(queue, text=str(number)) for number in range(5)]

    for message in messages:
        claim = claim_next(queue)
        assert claim.message == message
        queue.finish(claim, [])

    assert queue.claim(NO_WAIT) is None


def test_a_user_has_one_running_message_at_a_time(queue):
    enqueue(queue)
    second = enqueue(queue)
    first_claim = claim_next(queue)

    assert queue.claim(NO_WAIT) is None
    queue.finish(first_claim, [])
    assert claim_next(queue).message.id == second.id


def test_users_do_not_wait_for_each_other(queue):
    messages = [enqueue(queue, user_id) for user_id in ("ann", "bob", "cy")]

    running = [claim_next(queue).message.id for _ in messages]

    assert running == [message.id for message in messages]


def test_a_user_with_many_messages_does_not_delay_other_users(queue):
    for _ in range(5):
        enqueue(queue, "ann")
    enqueue(queue, "bob")

    queue.finish(claim_next(queue), [])

    assert claim_next(queue).message.user_id == "bob"


def test_a_claim_holds_the_enqueued_message(queue):
    original = Message(
        "m-1", "a/b?c#ä", {"message": "Ἐν ἀρχῇ\u2028\0", "deep": {"list": [1, None]}}, size=40, cancel_on_disconnect=True
    )
    queue.enqueue(original, "client's own", "enqueue")

    assert claim_next(queue).message == original


def test_claim_returns_none_from_an_empty_queue(queue):
    assert queue.claim(NO_WAIT) is None
    assert queue.claim(0.01) is None


def test_claim_waits_for_a_message(queue):
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(queue.claim, DEADLINE)
        message = enqueue(queue)

        assert waiting.result(DEADLINE).message.id == message.id


def test_claim_waits_for_a_users_running_message(queue):
    enqueue(queue)
    second = enqueue(queue)
    running = claim_next(queue)

    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(queue.claim, DEADLINE)
        queue.finish(running, [])

        assert waiting.result(DEADLINE).message.id == second.id


# Positions.


def test_a_receipt_counts_the_messages_ahead(queue):
    receipts = [queue.enqueue(new_message(), None, "enqueue").ahead for _ in range(3)]
    claim_next(queue)

    assert receipts == [0, 1, 2]
    assert queue.enqueue(new_message(), None, "enqueue").ahead == 3, "the running one counts"
    assert queue.enqueue(new_message("bob"), None, "enqueue").ahead == 0


def test_a_receipt_names_its_message(queue):
    message = new_message()

    assert queue.enqueue(message, None, "enqueue").message_id == message.id


def test_positions_are_listed_in_order(queue):
    first, second, third = enqueue(queue), enqueue(queue), enqueue(queue)
    enqueue(queue, "bob")
    claim_next(queue)

    assert queue.positions("ann") == [
        QueuePosition(first.id, "running", 0),
        QueuePosition(second.id, "queued", 1),
        QueuePosition(third.id, "queued", 2),
    ]
    assert queue.positions("nobody") == []


def test_a_finished_message_has_no_position(queue):
    enqueue_and_finish(queue)

    assert queue.positions("ann") == []


def test_position_changes_are_written_to_the_log(queue):
    first, second, third = enqueue(queue), enqueue(queue), enqueue(queue)

    for _ in range(3):
        queue.finish(claim_next(queue), [])

    assert [published_positions(queue, message) for message in (first, second, third)] == [[1], [2, 1], [3, 2, 1]]


def test_an_unchanged_position_is_not_written_again(queue):
    enqueue(queue)
    claim_next(queue)
    second = enqueue(queue)

    enqueue(queue)
    enqueue(queue, "bob")

    assert published_positions(queue, second) == [1]


def test_counts_are_of_users_and_of_running_messages(queue):
    for user_id in ("ann", "ann", "bob", "cy"):
        enqueue(queue, user_id)
    running = [claim_next(queue), claim_next(queue)]

    assert queue.counts() == Counts(queues=3, running=2)
    queue.finish(running[1], [])
    assert queue.counts() == Counts(queues=2, running=1)


def test_an_empty_queue_has_zero_counts(queue):
    enqueue_and_finish(queue)

    assert queue.counts() == Counts(queues=0, running=0)


# Logs.


def test_events_are_read_as_they_were_written(queue):
    entries = [
        ("processing", ""),
        ("message", '{"text":"Ἐν ἀρχῇ \u2028 \\n 👨‍👩‍👧‍👦"}'),
        ("message", "a\nb\x00c"),
        ("message", " x "),
    ]
    message = enqueue(queue)
    claim = claim_next(queue)

    queue.append(claim, entries[:1])
    queue.append(claim, entries[1:3])
    queue.append(claim, [])
    queue.finish(claim, entries[3:])

    assert [(event.event, event.data) for event in read_log(queue, message).events[1:-1]] == entries


def test_a_finished_log_has_ended_with_done(queue):
    message = enqueue(queue)
    claim = claim_next(queue)
    queue.append(claim, [("processing", "")])

    before = read_log(queue, message)
    queue.finish(claim, [("message", "bye")])
    after = read_log(queue, message)

    assert not before.ended
    assert after.ended
    assert [event.event for event in after.events] == ["queued", "processing", "message", "done"]
    assert json.loads(after.events[-1].data) == {"message_id": message.id}


def test_a_log_can_be_read_after_any_event(queue, clock):
    message = enqueue(queue)
    claim = claim_next(queue)
    for number in range(5):
        queue.append(claim, [("message", f"{number}a"), ("message", f"{number}b")])
        clock.advance(0.001 * (number % 2))
    queue.finish(claim, [])

    events = list(read_log(queue, message).events)

    assert len(events) == 12
    for number, event in enumerate(events):
        assert queue.read("ann", message.id, event.id) == Page(events[number + 1 :], True)


def test_event_ids_increase_when_the_clock_goes_back(queue, clock):
    message = enqueue(queue)
    claim = claim_next(queue)
    for number in range(5):
        queue.append(claim, [("message", str(number))])
        clock.advance(-10)

    last_but_one = read_log(queue, message).events[-2]

    assert [event.data for event in queue.read("ann", message.id, last_but_one.id).events] == ["4"]


def test_an_event_id_fits_into_a_header(queue):
    message = enqueue_and_finish(queue)

    for event in read_log(queue, message).events:
        assert event.id.isascii()
        assert event.id.isprintable()
        assert 0 < len(event.id) <= 64
        assert " " not in event.id


def test_no_events_follow_the_last_one(queue, implementation):
    message, running = enqueue_and_finish(queue), enqueue(queue)
    last = read_log(queue, message).events[-1].id

    assert queue.read("ann", message.id, last) == Page([], True)
    assert queue.read("ann", running.id, read_log(queue, running).events[-1].id) == Page([], False)
    after_the_end = queue.read("ann", message.id, "9999999999999-0")
    if getattr(implementation, "is_distributed", False):  # There a fail-over may have lost that event.
        assert after_the_end == Page([RESTART, *read_log(queue, message).events], True)
    else:
        assert after_the_end == Page([], True)


@pytest.mark.parametrize("length", [PAGE_EVENTS - 1, PAGE_EVENTS, PAGE_EVENTS + 1, 2 * PAGE_EVENTS + 7])
def test_a_long_log_is_read_in_pages(queue, length):
    message = enqueue(queue)
    claim = claim_next(queue)
    entries = [("message", str(number)) for number in range(length - 2)]  # Without its `queued` and `done` events.
    queue.append(claim, entries)
    queue.finish(claim, [])

    pages = [queue.read("ann", message.id, "")]
    while pages[-1].has_more:
        assert len(pages[-1].events) == PAGE_EVENTS
        assert not pages[-1].ended
        pages.append(queue.read("ann", message.id, pages[-1].events[-1].id))

    assert pages[-1].ended
    assert [event[:2] for page in pages for event in page.events][1:-1] == entries


def test_a_reader_of_several_pages_is_only_woken_for_new_events(queue):
    message = enqueue(queue)
    claim = claim_next(queue)
    queue.append(claim, [("message", str(number)) for number in range(2 * PAGE_EVENTS)])

    with ThreadPoolExecutor() as threads:
        following = threads.submit(follow, queue, message)
        queue.finish(claim, [("message", "bye")])

        assert following.result(DEADLINE) == [*(str(number) for number in range(2 * PAGE_EVENTS)), "bye"]


@pytest.mark.parametrize(
    "after",
    ["x", "-", "1", "1-", "-1", "1-1-1", "-1-1", "1.5-0", "1 - 1", " 1-1", "1-1\n", "$", "+", "٣-٣", "²-1", "9" * 50 + "-0"],
)
def test_a_malformed_event_id_is_refused(queue, after):
    message = enqueue(queue)

    with pytest.raises(InvalidRequest):
        queue.read("ann", message.id, after)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=45) | st.from_regex(r"[0-9]{1,25}-[0-9]{1,25}", fullmatch=True))
def test_any_text_is_a_valid_event_id_or_refused(queue, after):
    message = enqueue(queue, user_id=str(uuid.uuid4()))

    try:
        page = queue.read(message.user_id, message.id, after)
    except InvalidRequest:
        return

    assert set(page.events) - {RESTART} <= set(read_log(queue, message).events)


@pytest.mark.parametrize("user_id", ["bob", "", "an", "ann "])
@pytest.mark.parametrize("exists", [True, False], ids=["existing", "unknown"])
def test_another_users_message_is_neither_read_nor_stopped(queue, user_id, exists):
    message_id = enqueue_and_finish(queue, "ann").id if exists else "unknown"

    with pytest.raises(NotFound):
        queue.read(user_id, message_id, "")
    with pytest.raises(NotFound):
        queue.stop(user_id, message_id)


def test_an_unknown_message_is_not_found(queue):
    for message_id in ("unknown", ""):
        with pytest.raises(NotFound):
            queue.read("ann", message_id, "")
        with pytest.raises(NotFound):
            queue.stop("ann", message_id)


def test_another_users_running_message_is_not_stopped(queue):
    stop_calls = record_stops(queue)
    message = enqueue(queue)
    claim_next(queue)

    with pytest.raises(NotFound):
        queue.stop("bob", message.id)

    assert_no_more_stops(queue, stop_calls)


def test_a_reader_is_woken_by_each_change(queue):
    first, second = enqueue(queue), enqueue(queue)
    woken = threading.Event()

    def types_after_wake() -> list[str]:
        assert woken.wait(DEADLINE)
        woken.clear()
        return event_types(queue, second)

    with queue.subscribe(second.user_id, second.id, woken.set):
        running = claim_next(queue)
        assert types_after_wake() == ["queued", "queued"]
        queue.finish(running, [])
        running = claim_next(queue)
        queue.append(running, [("message", "a")])
        assert types_after_wake() == ["queued", "queued", "message"]
        queue.finish(running, [("message", "b")])
        assert types_after_wake() == ["queued", "queued", "message", "message", "done"]
    assert read_log(queue, first).ended


def test_a_reader_is_woken_when_its_message_is_stopped(queue):
    message = enqueue(queue)
    woken = threading.Event()

    with queue.subscribe(message.user_id, message.id, woken.set):
        queue.stop("ann", message.id)
        assert woken.wait(DEADLINE)

    assert read_log(queue, message).ended


def test_every_reader_is_woken(queue):
    message = enqueue(queue)
    claim = claim_next(queue)
    woken = [threading.Event() for _ in range(3)]

    with ExitStack() as subscriptions:
        for one in woken:
            subscriptions.enter_context(queue.subscribe(message.user_id, message.id, one.set))
        queue.append(claim, [("message", "a")])

        assert all(one.wait(DEADLINE) for one in woken)


def test_a_reader_that_unsubscribed_is_not_woken(queue):
    message = enqueue(queue)
    claim = claim_next(queue)
    unsubscribed, subscribed = threading.Event(), threading.Event()

    with queue.subscribe(message.user_id, message.id, subscribed.set):
        with queue.subscribe(message.user_id, message.id, unsubscribed.set):
            pass
        unsubscribed.clear()
        queue.append(claim, [("message", "a")])
        assert subscribed.wait(DEADLINE)

    assert not unsubscribed.is_set()


# Stopping.


def test_a_stopped_waiting_message_is_never_claimed(queue):
    message = enqueue(queue)

    queue.stop("ann", message.id)

    assert queue.claim(NO_WAIT) is None
    assert queue.positions("ann") == []
    assert event_types(queue, message) == ["queued", "message", "done"]
    assert read_log(queue, message).ended
    assert json.loads(read_log(queue, message).events[1].data) == {
        "type": "stopped",
        "response": {"responses": [], "response_language": None, "voice_audio_base64": None},
    }


@pytest.mark.parametrize("which", [0, 1, 2])
def test_stopping_a_waiting_message_leaves_the_others(queue, which):
    messages = [enqueue(queue) for _ in range(3)]
    stopped = messages.pop(which)

    queue.stop("ann", stopped.id)

    assert queue.positions("ann") == [QueuePosition(messages[0].id, "queued", 1), QueuePosition(messages[1].id, "queued", 2)]
    assert [published_positions(queue, message)[-1] for message in messages] == [1, 2]
    for message in messages:
        claim = claim_next(queue)
        assert claim.message.id == message.id
        queue.finish(claim, [])


def test_a_user_may_enqueue_after_all_waiting_messages_were_stopped(queue):
    running, waiting = enqueue(queue), enqueue(queue)
    claim = claim_next(queue)

    queue.stop("ann", waiting.id)
    queue.finish(claim, [])
    assert queue.claim(NO_WAIT) is None
    second_message = enqueue(queue)

    assert claim_next(queue).message.id == second_message.id
    assert read_log(queue, running).ended


def test_stopping_a_running_message_calls_its_worker(queue):
    stop_calls = record_stops(queue)
    message = enqueue(queue)
    claim = claim_next(queue)

    queue.stop("ann", message.id)

    assert stop_calls.get(timeout=DEADLINE) == message.id
    assert queue.positions("ann") == [QueuePosition(message.id, "running", 0, stopping=True)]
    queue.append(claim, [("message", "still here")])
    assert not read_log(queue, message).ended
    queue.finish(claim, [])
    assert read_log(queue, message).ended


def test_a_stop_calls_every_callback(queue):
    stop_calls = [record_stops(queue), record_stops(queue)]
    message = enqueue(queue)
    claim_next(queue)

    queue.stop("ann", message.id)

    assert [one.get(timeout=DEADLINE) for one in stop_calls] == [message.id, message.id]


def test_stopping_a_waiting_message_calls_no_worker(queue):
    stop_calls = record_stops(queue)

    queue.stop("ann", enqueue(queue).id)

    assert_no_more_stops(queue, stop_calls)


def test_stopping_a_finished_message_does_nothing(queue):
    stop_calls = record_stops(queue)
    message = enqueue_and_finish(queue)
    before = read_log(queue, message)

    queue.stop("ann", message.id)

    assert read_log(queue, message) == before
    assert_no_more_stops(queue, stop_calls)


def test_stopping_a_waiting_message_twice_does_nothing(queue):
    waiting = enqueue(queue)
    queue.stop("ann", waiting.id)
    before = read_log(queue, waiting)

    queue.stop("ann", waiting.id)

    assert read_log(queue, waiting) == before


def test_stopping_a_message_that_stopped_and_finished_does_nothing(queue):
    stop_calls = record_stops(queue)
    message = enqueue(queue)
    claim = claim_next(queue)
    queue.stop("ann", message.id)
    queue.finish(claim, [])
    assert stop_calls.get(timeout=DEADLINE) == message.id

    queue.stop("ann", message.id)

    assert_no_more_stops(queue, stop_calls)


def test_a_stop_does_not_affect_the_next_message(queue):
    stop_calls = record_stops(queue)
    first, second = enqueue(queue), enqueue(queue)
    claim = claim_next(queue)
    queue.stop("ann", first.id)
    queue.finish(claim, [])
    claim_next(queue)

    assert stop_calls.get(timeout=DEADLINE) == first.id
    assert queue.positions("ann") == [QueuePosition(second.id, "running", 0)]
    assert_no_more_stops(queue, stop_calls)


def test_renew_reports_a_stop(queue):
    message = enqueue(queue)
    claim = claim_next(queue)
    assert not queue.renew(claim)

    queue.stop("ann", message.id)

    assert queue.renew(claim)


# Releasing.


def test_a_released_message_is_the_users_next(queue):
    first, second = enqueue(queue), enqueue(queue)
    claim = claim_next(queue)
    queue.append(claim, [("processing", "")], started=False)

    queue.release(claim)

    assert queue.positions("ann") == [QueuePosition(first.id, "queued", 1), QueuePosition(second.id, "queued", 2)]
    second_claim = claim_next(queue)
    assert second_claim.message == first
    assert second_claim.token > claim.token
    queue.finish(second_claim, [("message", "bye")])
    assert event_types(queue, first) == ["queued", "processing", "queued", "message", "done"]
    assert published_positions(queue, second) == [2, 1, 2, 1]


def test_a_released_message_with_output_is_interrupted(queue):
    first, second = enqueue(queue), enqueue(queue)
    claim = claim_next(queue)
    queue.append(claim, [("message", "well, ")])

    queue.release(claim)

    assert event_types(queue, first) == ["queued", "message", "message", "done"]
    assert json.loads(read_log(queue, first).events[-2].data)["code"] == "interrupted"
    assert claim_next(queue).message.id == second.id


def test_a_released_message_that_was_to_stop_is_stopped(queue):
    message = enqueue(queue)
    claim = claim_next(queue)
    queue.stop("ann", message.id)

    queue.release(claim)

    assert json.loads(read_log(queue, message).events[-2].data)["type"] == "stopped"
    assert queue.claim(NO_WAIT) is None


# Fencing.


def writes(queue: Queue, claim: Claim) -> list[Callable[[], None]]:
    return [
        lambda: queue.renew(claim),
        lambda: queue.append(claim, [("message", "late")]),
        lambda: queue.finish(claim, [("message", "late")]),
        lambda: queue.release(claim),
    ]


def test_a_claim_can_be_renewed(queue):
    message = enqueue(queue)
    claim = claim_next(queue)

    queue.renew(claim)

    assert event_types(queue, message) == ["queued"]


def test_nothing_is_written_after_finish(queue):
    message = enqueue(queue)
    claim = claim_next(queue)
    queue.finish(claim, [])
    before = read_log(queue, message)

    for write in writes(queue, claim):
        with pytest.raises(LeaseLost):
            write()

    assert read_log(queue, message) == before


def test_a_late_worker_does_not_affect_the_users_next_message(queue):
    enqueue(queue)
    second = enqueue(queue)
    late = claim_next(queue)
    queue.finish(late, [])
    claim_next(queue)
    before = read_log(queue, second)

    for write in writes(queue, late):
        with pytest.raises(LeaseLost):
            write()

    assert read_log(queue, second) == before
    assert queue.positions("ann") == [QueuePosition(second.id, "running", 0)]


@pytest.mark.parametrize(
    "forge",
    [
        lambda claim: claim._replace(token=claim.token - 1),
        lambda claim: claim._replace(message=new_message("ann")),
        lambda claim: claim._replace(message=new_message("bob")),
    ],
    ids=["an older token", "another message", "another user"],
)
def test_a_forged_claim_is_refused(queue, forge):
    message = enqueue(queue)
    claim = claim_next(queue)

    for write in writes(queue, forge(claim)):
        with pytest.raises(LeaseLost):
            write()

    assert event_types(queue, message) == ["queued"]
    queue.finish(claim, [])


# Idempotency.


def test_a_repeated_message_returns_the_first_receipt(queue):
    first = queue.enqueue(new_message(), "id-1", "enqueue")

    repeated = queue.enqueue(new_message(), "id-1", "enqueue")

    assert repeated == first
    assert queue.positions("ann") == [QueuePosition(first.message_id, "queued", 1)]


def test_a_repeated_message_has_its_current_position(queue):
    enqueue(queue)
    message = new_message()
    aheads = [queue.enqueue(message, "id-1", "enqueue").ahead]

    def enqueue_again() -> None:
        receipt = queue.enqueue(new_message(), "id-1", "enqueue")
        assert receipt.message_id == message.id
        aheads.append(receipt.ahead)

    enqueue_again()
    for _ in range(2):
        running = claim_next(queue)
        enqueue_again()
        queue.finish(running, [])
        enqueue_again()

    assert aheads == [1, 1, 1, 0, 0, 0]


def test_a_reused_id_with_other_content_is_a_conflict(queue):
    first = queue.enqueue(new_message(text="one"), "id-1", "enqueue")

    with pytest.raises(IdempotencyConflict):
        queue.enqueue(new_message(text="two"), "id-1", "enqueue")

    assert [position.message_id for position in queue.positions("ann")] == [first.message_id]


def test_the_order_of_a_messages_fields_is_irrelevant(queue):
    first = queue.enqueue(Message("m-1", "ann", {"a": 1, "b": {"c": 2, "d": 3}}), "id-1", "enqueue")

    repeated = queue.enqueue(Message("m-2", "ann", {"b": {"d": 3, "c": 2}, "a": 1}), "id-1", "enqueue")

    assert repeated == first


def test_the_same_id_of_another_user_is_another_message(queue):
    ann = queue.enqueue(new_message("ann", "one"), "id-1", "enqueue")

    bob = queue.enqueue(new_message("bob", "two"), "id-1", "enqueue")

    assert ann.message_id != bob.message_id
    assert bob.ahead == 0


def test_without_an_id_equal_messages_are_both_enqueued(queue):
    enqueue(queue, text="yes")
    enqueue(queue, text="yes")

    assert len(queue.positions("ann")) == 2


@pytest.mark.usefixtures("frequent_thread_switches")
def test_a_message_repeated_in_many_threads_is_enqueued_once(queue):
    barrier = threading.Barrier(50)

    def enqueue_repeated() -> str:
        barrier.wait(DEADLINE)
        return queue.enqueue(new_message(), "id-1", "enqueue").message_id

    with ThreadPoolExecutor(50) as threads:
        ids = {future.result(DEADLINE) for future in [threads.submit(enqueue_repeated) for _ in range(50)]}

    assert [position.message_id for position in queue.positions("ann")] == list(ids)


def test_a_repeated_message_is_not_limited(make):
    queue = make(depth_per_user=1, waiting_bytes=10)
    first = queue.enqueue(new_message(size=10), "id-1", "enqueue")

    for on_busy in ("enqueue", "reject", "interrupt"):
        assert queue.enqueue(new_message(size=10), "id-1", on_busy) == first


def test_a_refused_message_may_be_repeated(make):
    queue = make(depth_per_user=1)
    waiting = enqueue(queue)
    for on_busy, refusal in (("enqueue", TooManyRequests), ("reject", Busy)):
        with pytest.raises(refusal):
            queue.enqueue(new_message(text="later"), "id-1", on_busy)

    queue.stop("ann", waiting.id)

    assert queue.enqueue(new_message(text="later"), "id-1", "reject").ahead == 0


def test_a_repeated_message_whose_log_was_removed_is_expired(make, clock):
    queue = make(retention=600)
    first = queue.enqueue(new_message(), "id-1", "enqueue")
    queue.finish(claim_next(queue), [])
    clock.advance(601)
    queue.sweep()

    with pytest.raises(Expired) as error:
        queue.enqueue(new_message(), "id-1", "enqueue")

    assert error.value.message_id == first.message_id


def test_an_id_may_be_reused_after_a_day(make, clock):
    queue = make(retention=600)
    first = queue.enqueue(new_message(), "id-1", "enqueue")
    queue.finish(claim_next(queue), [])
    clock.advance(DAY + 1)
    queue.sweep()

    repeated = queue.enqueue(new_message(text="other content"), "id-1", "enqueue")

    assert repeated.message_id != first.message_id


# Limits.


def test_too_many_waiting_messages_of_a_user_are_refused(make):
    queue = make(depth_per_user=2)
    enqueue(queue)
    claim_next(queue)
    messages = [enqueue(queue), enqueue(queue)]

    with pytest.raises(TooManyRequests):
        queue.enqueue(new_message(), None, "enqueue")

    assert [position.message_id for position in queue.positions("ann")[1:]] == [message.id for message in messages]
    enqueue(queue, "bob")


@pytest.mark.parametrize("make_room", ["claim", "stop"])
def test_claiming_or_stopping_a_waiting_message_makes_room(make, make_room):
    queue = make(depth_per_user=1)
    waiting = enqueue(queue)

    if make_room == "claim":
        claim_next(queue)
    else:
        queue.stop("ann", waiting.id)

    assert enqueue(queue)


# Redis has a memory limit of its own: see test_redis.py.
@pytest.mark.parametrize("implementation", ["memory", "journal"], indirect=True)
def test_too_many_waiting_bytes_of_all_users_are_refused(make):
    queue = make(waiting_bytes=100)
    enqueue(queue, "ann", size=60)
    enqueue(queue, "bob", size=40)

    with pytest.raises(ServerFull):
        queue.enqueue(new_message("cy", size=1), None, "enqueue")

    assert queue.counts().queues == 2
    assert queue.positions("cy") == []


@pytest.mark.parametrize("implementation", ["memory"], indirect=True)
@pytest.mark.parametrize("make_room", ["finish", "stop"])
def test_finishing_or_stopping_a_message_frees_its_bytes(make, make_room):
    queue = make(waiting_bytes=100)
    message = enqueue(queue, size=100)

    if make_room == "finish":
        claim = claim_next(queue)
        with pytest.raises(ServerFull):
            queue.enqueue(new_message("bob", size=1), None, "enqueue")
        queue.finish(claim, [])
    else:
        queue.stop("ann", message.id)

    assert enqueue(queue, "bob", size=100)


def test_on_busy_reject_refuses_while_the_user_is_busy(queue):
    running = enqueue(queue, on_busy="reject")
    with pytest.raises(Busy):
        queue.enqueue(new_message(), None, "reject")
    claim = claim_next(queue)
    with pytest.raises(Busy):
        queue.enqueue(new_message(), None, "reject")

    assert queue.positions("ann") == [QueuePosition(running.id, "running", 0)]
    assert queue.enqueue(new_message("bob"), None, "reject").ahead == 0
    queue.finish(claim, [])
    assert queue.enqueue(new_message(), None, "reject").ahead == 0


def test_on_busy_interrupt_stops_the_running_message(queue):
    stop_calls = record_stops(queue)
    running, waiting = enqueue(queue), enqueue(queue)
    claim = claim_next(queue)

    receipt = queue.enqueue(urgent := new_message(), None, "interrupt")

    assert stop_calls.get(timeout=DEADLINE) == running.id
    assert receipt[:2] == (urgent.id, 1)
    assert [position.message_id for position in queue.positions("ann")] == [running.id, urgent.id, waiting.id]
    assert published_positions(queue, waiting) == [2, 1, 2]
    queue.finish(claim, [])
    assert claim_next(queue).message.id == urgent.id


def test_on_busy_interrupt_stops_nothing_while_the_user_is_idle(queue):
    stop_calls = record_stops(queue)

    receipt = queue.enqueue(new_message(), None, "interrupt")

    assert receipt.ahead == 0
    assert_no_more_stops(queue, stop_calls)


def test_a_refused_interruption_stops_nothing(make):
    queue = make(depth_per_user=1)
    stop_calls = record_stops(queue)
    enqueue(queue)
    claim_next(queue)
    enqueue(queue)

    with pytest.raises(TooManyRequests):
        queue.enqueue(new_message(), None, "interrupt")

    assert_no_more_stops(queue, stop_calls)


# Retention.


def test_a_finished_log_is_kept_then_expired_then_unknown(make, clock):
    queue = make(retention=600)
    message = enqueue_and_finish(queue)

    def sweep_and_read() -> None:
        queue.sweep()
        read_log(queue, message)

    clock.advance(599)
    sweep_and_read()
    clock.advance(2)
    for _ in range(2):
        with pytest.raises(Expired):
            sweep_and_read()
        with pytest.raises(Expired):
            queue.stop("ann", message.id)
        with pytest.raises(NotFound):
            queue.read("bob", message.id, "")
        clock.advance(DAY - 3)
    clock.advance(10)
    with pytest.raises(NotFound):
        sweep_and_read()


def test_retention_starts_when_the_message_finishes(make, clock):
    queue = make(retention=600)
    message = enqueue(queue)
    clock.advance(2000)
    queue.sweep()
    claim = claim_next(queue)
    clock.advance(2000)
    queue.sweep()
    queue.finish(claim, [])
    clock.advance(599)
    queue.sweep()

    assert read_log(queue, message).ended


def test_a_log_over_its_limit_accepts_only_its_end(make):
    queue = make(log_bytes=100_000)
    message = enqueue(queue)
    claim = claim_next(queue)
    queue.append(claim, [("message", "x" * 80_000)])

    with pytest.raises(TooLarge):
        queue.append(claim, [("message", "y" * 15_000), ("message", "z" * 15_000)])

    assert event_types(queue, message) == ["queued", "message"], "appends are atomic"
    queue.renew(claim)
    queue.finish(claim, [("message", "e" * 50_000)])
    assert event_types(queue, message) == ["queued", "message", "message", "done"]


def test_log_size_is_measured_in_bytes(make):
    queue = make(log_bytes=100_000)
    enqueue(queue)
    claim = claim_next(queue)

    with pytest.raises(TooLarge):
        queue.append(claim, [("message", "語" * 50_000)])


def test_the_oldest_finished_logs_are_removed_first(make):
    queue = make(log_bytes=100_000)
    oldest, middle = enqueue_and_finish(queue, text="x" * 35_000), enqueue_and_finish(queue, text="x" * 35_000)

    newest = enqueue_and_finish(queue, text="x" * 35_000)

    with pytest.raises(Expired):
        read_log(queue, oldest)
    assert read_log(queue, middle).ended
    assert read_log(queue, newest).ended


def test_a_running_messages_log_is_never_removed(make, clock):
    queue = make(log_bytes=100_000, retention=1)
    running = enqueue(queue, "ann")
    queue.append(claim_next(queue), [("message", "x" * 90_000)])

    for _ in range(5):
        enqueue_and_finish(queue, "bob", "x" * 90_000)
        clock.advance(10)
        queue.sweep()

    assert event_types(queue, running) == ["queued", "message"]


# Cancellation on disconnect, by sweeps.


@pytest.fixture
def queue_with_grace(make) -> Queue:
    return make(grace=5)


def sweep_after(queue: Queue, clock: Clock, seconds: float) -> None:
    """Advances the clock and sweeps."""
    clock.advance(seconds)
    queue.sweep()


def test_an_unread_waiting_message_is_stopped(queue_with_grace, clock):
    message = enqueue(queue_with_grace, cancel_on_disconnect=True)

    sweep_after(queue_with_grace, clock, 4)
    assert not read_log(queue_with_grace, message).ended
    sweep_after(queue_with_grace, clock, 1.1)

    assert event_types(queue_with_grace, message) == ["queued", "message", "done"]
    assert queue_with_grace.claim(NO_WAIT) is None


def test_an_unread_running_message_is_stopped_once(queue_with_grace, clock):
    stop_calls = record_stops(queue_with_grace)
    message = enqueue(queue_with_grace, cancel_on_disconnect=True)
    claim_next(queue_with_grace)

    for _ in range(3):
        sweep_after(queue_with_grace, clock, 6)

    assert stop_calls.get(timeout=DEADLINE) == message.id
    assert_no_more_stops(queue_with_grace, stop_calls)


def test_a_message_with_readers_is_not_stopped(queue_with_grace, clock):
    message = enqueue(queue_with_grace, cancel_on_disconnect=True)

    with queue_with_grace.subscribe(message.user_id, message.id, lambda: None):
        with queue_with_grace.subscribe(message.user_id, message.id, lambda: None):
            sweep_after(queue_with_grace, clock, 60)
        sweep_after(queue_with_grace, clock, 60)

    assert not read_log(queue_with_grace, message).ended


def test_the_grace_period_starts_when_the_last_reader_leaves(queue_with_grace, clock):
    message = enqueue(queue_with_grace, cancel_on_disconnect=True)
    with queue_with_grace.subscribe(message.user_id, message.id, lambda: None):
        sweep_after(queue_with_grace, clock, 60)

    sweep_after(queue_with_grace, clock, 4)
    with queue_with_grace.subscribe(message.user_id, message.id, lambda: None):
        sweep_after(queue_with_grace, clock, 1)
    sweep_after(queue_with_grace, clock, 4)
    assert not read_log(queue_with_grace, message).ended
    sweep_after(queue_with_grace, clock, 1.1)

    assert read_log(queue_with_grace, message).ended


def test_other_messages_need_no_readers(queue_with_grace, clock):
    waiting, running = enqueue(queue_with_grace, "ann"), enqueue(queue_with_grace, "bob")
    stop_calls = record_stops(queue_with_grace)

    sweep_after(queue_with_grace, clock, 3600)

    assert not read_log(queue_with_grace, waiting).ended
    assert not read_log(queue_with_grace, running).ended
    assert_no_more_stops(queue_with_grace, stop_calls)


def test_one_sweep_stops_several_unread_messages(queue_with_grace, clock):
    messages = [enqueue(queue_with_grace, cancel_on_disconnect=number != 1) for number in range(4)]

    sweep_after(queue_with_grace, clock, 6)

    assert [read_log(queue_with_grace, message).ended for message in messages] == [True, False, True, True]
    assert queue_with_grace.positions("ann") == [QueuePosition(messages[1].id, "queued", 1)]
    assert claim_next(queue_with_grace).message.id == messages[1].id


# Sequences of calls, and concurrency.


class Model:
    """The simplest queue: a list per user."""

    DEPTH = 3

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.waiting: dict[str, list[Message]] = defaultdict(list)
        self.running: dict[str, Claim] = {}
        self.ended: list[Message] = []

    def active(self) -> list[Message]:
        waiting = [message for messages in self.waiting.values() for message in messages]
        return waiting + [claim.message for claim in self.running.values()]

    def refusal(self, user_id: str, on_busy: str) -> type[Exception] | None:
        if on_busy == "reject" and (self.waiting[user_id] or user_id in self.running):
            return Busy
        if len(self.waiting[user_id]) == self.DEPTH:
            return TooManyRequests
        return ServerFull if len(self.active()) == self.capacity else None


def model_enqueue(queue: Queue, model: Model, user_id: str, on_busy: str) -> None:
    message, waiting, busy = new_message(user_id, size=100), model.waiting[user_id], user_id in model.running
    if refusal := model.refusal(user_id, on_busy):
        with pytest.raises(refusal):
            queue.enqueue(message, None, on_busy)
        return
    waiting.insert(0 if on_busy == "interrupt" and busy else len(waiting), message)
    assert queue.enqueue(message, None, on_busy)[:2] == (message.id, waiting.index(message) + busy)


def model_claim(queue: Queue, model: Model) -> None:
    claimable = [user_id for user_id, waiting in model.waiting.items() if waiting and user_id not in model.running]
    claim = queue.claim(NO_WAIT)
    assert (claim is not None) == bool(claimable)
    if claim:
        assert claim.message.user_id in claimable
        assert claim.message == model.waiting[claim.message.user_id].pop(0)
        model.running[claim.message.user_id] = claim


def model_finish(queue: Queue, model: Model, user_id: str) -> None:
    if claim := model.running.pop(user_id, None):
        queue.finish(claim, [("message", "bye")])
        model.ended.append(claim.message)


def model_stop(queue: Queue, model: Model, number: int) -> None:
    if message := dict(enumerate(model.active() + model.ended)).get(number):
        queue.stop(message.user_id, message.id)
        if message in model.waiting[message.user_id]:
            model.waiting[message.user_id].remove(message)
            model.ended.append(message)


def model_sweep(queue: Queue, _: Model) -> None:
    queue.sweep()


users = st.sampled_from(["ann", "bob", "cy"])
steps = st.one_of(
    st.tuples(st.just(model_enqueue), users, st.sampled_from(["enqueue", "reject", "interrupt"])),
    st.tuples(st.just(model_claim)),
    st.tuples(st.just(model_finish), users),
    st.tuples(st.just(model_stop), st.integers(0, 20)),
    st.tuples(st.just(model_sweep)),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, max_size=40))
def test_any_sequence_of_calls_matches_the_model(make, implementation, sequence):
    if isinstance(implementation, InRedis):
        implementation.examples += 1
        if implementation.examples > implementation.max_examples:
            return
    model = Model(capacity=7 if isinstance(implementation, InMemory) else 1000)
    queue = make(depth_per_user=Model.DEPTH, waiting_bytes=model.capacity * 100)

    for step, *arguments in sequence:
        step(queue, model, *arguments)
        check_model(queue, model)
    while model.active():
        model_claim(queue, model)
        for user_id in list(model.running):
            model_finish(queue, model, user_id)
        check_model(queue, model)

    assert queue.counts() == Counts(0, 0)
    enqueue(queue, size=model.capacity * 100)


def check_model(queue: Queue, model: Model) -> None:
    for user_id, waiting in model.waiting.items():
        running = [QueuePosition(model.running[user_id].message.id, "running", 0)] if user_id in model.running else []
        queued = [QueuePosition(message.id, "queued", index) for index, message in enumerate(waiting, start=1)]
        assert [position._replace(stopping=False) for position in queue.positions(user_id)] == running + queued
        assert [published_positions(queue, message)[-1] for message in waiting] == list(range(1, len(waiting) + 1))
    for message in model.active():
        assert not read_log(queue, message).ended
    for message in model.ended:
        assert read_log(queue, message).ended
        assert event_types(queue, message)[-2:] == ["message", "done"]
    busy = {message.user_id for message in model.active()}
    assert queue.counts() == Counts(len(busy), len(model.running))


class Workers:
    """Finish `expected` messages, and record the order of each user's."""

    def __init__(self, queue: Queue, expected: int) -> None:
        self.finished: dict[str, list[str]] = defaultdict(list)
        self._queue = queue
        self._remaining = expected
        self._lock = threading.Lock()
        self._busy: set[str] = set()

    def work(self) -> None:
        deadline = monotonic() + DEADLINE
        while self._remaining and monotonic() < deadline:
            if claim := self._queue.claim(0.05):
                self._process(claim)

    def _process(self, claim: Claim) -> None:
        assert claim.message.user_id not in self._busy
        self._busy.add(claim.message.user_id)
        self._queue.append(claim, [("processing", "")])
        self._queue.append(claim, [("message", "a"), ("message", "b")])
        self._queue.renew(claim)
        self.finished[claim.message.user_id].append(claim.message.id)
        self._busy.remove(claim.message.user_id)
        self._queue.finish(claim, [("message", "c")])
        with self._lock:
            self._remaining -= 1


def follow(queue: Queue, message: Message) -> list[str]:
    """Reads the reply as it is written."""
    texts, after, woken = [], "", threading.Event()
    with queue.subscribe(message.user_id, message.id, woken.set):
        while True:
            events, ended, more = queue.read(message.user_id, message.id, after)
            texts += [event.data for event in events if event.event == "message"]
            after = events[-1].id if events else after
            if ended:
                return texts
            if not more:
                assert woken.wait(DEADLINE)
                woken.clear()


@pytest.mark.usefixtures("frequent_thread_switches")
def test_many_threads_keep_each_users_order(make):
    queue, users, each = make(depth_per_user=25), [f"user-{n}" for n in range(8)], 25
    workers = Workers(queue, len(users) * each)

    def enqueue_and_follow(user_id: str) -> list[Message]:
        messages = [enqueue(queue, user_id, text=str(number)) for number in range(each)]
        assert [follow(queue, message) for message in messages] == [["a", "b", "c"]] * each
        return messages

    with ThreadPoolExecutor(16) as threads:
        working = [threads.submit(workers.work) for _ in range(6)]
        following = {user_id: threads.submit(enqueue_and_follow, user_id) for user_id in users}
        for work in working:
            work.result(DEADLINE)

    assert workers.finished == {user_id: [message.id for message in future.result()] for user_id, future in following.items()}
    assert queue.counts() == Counts(0, 0)


# Groups.


def in_group(group: str, user_id: str = "ann", **more: Any) -> Message:
    return new_message(user_id, **more)._replace(id=new_id("org", user_id, group))


def test_groups_of_a_user_do_not_wait_for_each_other(queue):
    messages = [in_group(group) for group in ("one", "two", "", "one")]
    for message in messages:
        queue.enqueue(message, None, "enqueue")

    assert [claim_next(queue).message.id for _ in range(3)] == [message.id for message in messages[:3]]
    assert queue.claim(NO_WAIT) is None


def test_groups_of_the_same_name_belong_to_different_users(queue):
    anns, bobs = in_group("one", "ann"), in_group("one", "bob")
    for one in (anns, bobs):
        queue.enqueue(one, None, "reject")

    assert [position.message_id for position in queue.positions("ann", "one")] == [anns.id]
    assert [position.message_id for position in queue.positions("bob", "one")] == [bobs.id]
    assert queue.positions("ann") == queue.positions("ann", "two") == []


def test_depth_and_positions_are_per_group(make):
    queue = make(depth_per_user=2)
    for group in ("one", "two"):
        assert [queue.enqueue(in_group(group), None, "enqueue").ahead for _ in range(2)] == [0, 1]
        with pytest.raises(TooManyRequests):
            queue.enqueue(in_group(group), None, "enqueue")

    assert [position.position for position in queue.positions("ann", "two")] == [1, 2]


def test_idempotency_keys_are_per_group(queue):
    one, two = in_group("one"), in_group("two")

    assert queue.enqueue(one, "key", "enqueue").message_id == one.id
    assert queue.enqueue(two, "key", "enqueue").message_id == two.id
    assert queue.enqueue(in_group("one"), "key", "enqueue").message_id == one.id


def test_interrupting_stops_only_the_groups_message(queue):
    stop_calls = record_stops(queue)
    one, two = in_group("one"), in_group("two")
    for each in (one, two):
        queue.enqueue(each, None, "enqueue")
        claim_next(queue)

    queue.enqueue(in_group("two"), None, "interrupt")

    assert stop_calls.get(timeout=DEADLINE) == two.id
    assert stop_calls.empty()


@pytest.mark.parametrize("verb", ["read", "stop", "cancel_if_no_readers", "continue_without_readers"])
def test_a_groups_message_is_hidden_from_other_users(queue, verb):
    message = in_group("one")
    queue.enqueue(message, None, "enqueue")
    more = ("",) if verb == "read" else ()

    for finish in (False, True):
        if finish:
            queue.finish(claim_next(queue), [])
        with pytest.raises(NotFound):
            getattr(queue, verb)("bob", message.id, *more)
        getattr(queue, verb)("ann", message.id, *more)
        if not finish and verb in {"stop", "cancel_if_no_readers"}:
            return


# Runs: at most one per scope waits or runs.


def run(key: str, scope: str = "talk", **more: Any) -> Message:
    return in_group("group", **more)._replace(run_scope=scope, run_key=key)


@pytest.mark.parametrize("running", [False, True])
def test_a_message_with_the_same_run_key_joins_the_run(queue, running):
    first = run("a", text="first")
    queue.enqueue(first, None, "enqueue")
    if running:
        claim_next(queue)

    assert queue.enqueue(run("a", text="second"), None, "enqueue").message_id == first.id
    assert len(queue.positions("ann", "group")) == 1


@pytest.mark.parametrize("running", [False, True])
def test_another_run_of_the_scope_is_refused_and_another_scope_waits(queue, running):
    queue.enqueue(run("a"), None, "enqueue")
    if running:
        claim_next(queue)

    with pytest.raises(Busy):
        queue.enqueue(run("b"), None, "enqueue")
    assert queue.enqueue(run("b", "other talk"), None, "enqueue").ahead == 1
    assert queue.enqueue(in_group("group"), None, "enqueue").ahead == 2


def test_a_run_key_without_a_scope_is_listed_and_has_no_other_effect(queue):
    messages = [run("chat-1", ""), run("chat-1", ""), run("chat-2", "")]
    for message in messages:
        queue.enqueue(message, None, "enqueue")
    claim_next(queue)

    listed = [(entry.message_id, entry.run_scope, entry.run_key) for entry in queue.positions("ann", "group")]
    assert listed == [(message.id, "", message.run_key) for message in messages]


def test_a_finished_run_is_not_joined(queue):
    first, second = run("a"), run("a")
    queue.enqueue(first, None, "enqueue")
    queue.finish(claim_next(queue), [])

    assert queue.enqueue(second, None, "enqueue").message_id == second.id
    queue.stop("ann", second.id)
    assert queue.enqueue(run("b"), None, "enqueue").ahead == 0


def test_concurrent_messages_start_one_run(queue, frequent_thread_switches):
    with ThreadPoolExecutor(8) as threads:
        futures = [threads.submit(queue.enqueue, run("a"), None, "enqueue") for _ in range(16)]
        ids = {future.result(DEADLINE).message_id for future in futures}

    assert len(ids) == len(queue.positions("ann", "group")) == 1


@pytest.mark.parametrize("key", ["a", "b"])
def test_a_stopping_run_is_neither_joined_nor_busy(queue, key):
    first, second = run("a"), run(key)
    queue.enqueue(first, None, "enqueue")
    claim = claim_next(queue)
    queue.stop("ann", first.id)

    assert queue.enqueue(second, None, "enqueue") == Receipt(second.id, 1)
    assert queue.positions("ann", "group") == [
        QueuePosition(first.id, "running", 0, "talk", "a", stopping=True),
        QueuePosition(second.id, "queued", 1, "talk", key),
    ]
    with pytest.raises(Busy):
        queue.enqueue(run("c"), None, "enqueue")
    queue.finish(claim, [("message", "stopped")])
    assert claim_next(queue).message == second


def test_positions_include_runs_and_a_claim_its_handler(queue):
    message = run("a")._replace(handler="bundled")
    queue.enqueue(message, None, "enqueue")

    assert queue.positions("ann", "group") == [QueuePosition(message.id, "queued", 1, "talk", "a")]
    assert claim_next(queue).message == message
    assert queue.positions("ann", "group") == [QueuePosition(message.id, "running", 0, "talk", "a")]


# Commits.


def test_a_committed_message_cannot_be_stopped(queue):
    stop_calls = record_stops(queue)
    message = enqueue(queue, cancel_on_disconnect=True)
    claim = claim_next(queue)

    assert queue.commit(claim)
    queue.stop("ann", message.id)
    queue.cancel_if_no_readers("ann", message.id)

    assert queue.renew(claim) is None
    assert queue.commit(claim)
    assert_no_more_stops(queue, stop_calls)


def test_a_stopped_message_is_not_committed(queue):
    message = enqueue(queue)
    claim = claim_next(queue)
    queue.stop("ann", message.id)

    assert not queue.commit(claim)
    assert queue.renew(claim) == "stopped"


def test_an_unread_message_is_not_committed(make, clock):
    queue = make(grace=5)
    enqueue(queue, cancel_on_disconnect=True)
    claim = claim_next(queue)
    clock.advance(6)
    queue.sweep()

    assert not queue.commit(claim)
    assert queue.renew(claim) == "unread"


def test_a_late_worker_cannot_commit(queue):
    enqueue(queue)
    claim = claim_next(queue)
    queue.finish(claim, [])

    with pytest.raises(LeaseLost):
        queue.commit(claim)


@pytest.mark.parametrize("started", [False, True])
def test_a_committed_message_goes_to_the_next_worker(queue, started):
    one = enqueue(queue)
    claim = claim_next(queue)
    queue.append(claim, [("message", "so far")], started=started)
    queue.commit(claim)

    queue.release(claim)
    queue.stop("ann", one.id)
    second_claim = claim_next(queue)

    assert (second_claim.message.id, second_claim.was_started) == (one.id, started)
    assert queue.commit(second_claim)
    queue.finish(second_claim, [("message", "the end")])
    assert event_types(queue, one)[-2:] == ["message", "done"]


# Cancellation when the last reader leaves.


def test_a_message_is_cancelled_when_its_last_reader_leaves(queue):
    stop_calls: stdlib.Queue[Any] = stdlib.Queue()
    queue.on_stop(lambda *arguments: stop_calls.put(arguments))
    message = enqueue(queue, cancel_on_disconnect=True)
    claim = claim_next(queue)
    with ExitStack() as first:
        first.enter_context(queue.subscribe("ann", message.id, lambda: None))
        with queue.subscribe("ann", message.id, lambda: None):
            pass
        queue.cancel_if_no_readers("ann", message.id)
        assert queue.renew(claim) is None

    queue.cancel_if_no_readers("ann", message.id)

    assert queue.renew(claim) == "unread"
    assert stop_calls.get(timeout=DEADLINE) == (message.id, "unread")


def test_a_waiting_message_is_cancelled_when_its_last_reader_leaves(queue):
    enqueue(queue)
    message = enqueue(queue, cancel_on_disconnect=True)

    queue.cancel_if_no_readers("ann", message.id)

    assert read_log(queue, message).ended
    assert len(queue.positions("ann")) == 1


@pytest.mark.parametrize("continued", [False, True])
def test_other_messages_are_not_cancelled_without_readers(queue, continued):
    message = enqueue(queue, cancel_on_disconnect=continued)
    claim = claim_next(queue)
    if continued:
        queue.continue_without_readers("ann", message.id)

    queue.cancel_if_no_readers("ann", message.id)

    assert queue.renew(claim) is None


def test_a_stop_takes_precedence_over_a_cancellation(queue):
    message = enqueue(queue, cancel_on_disconnect=True)
    claim = claim_next(queue)

    queue.stop("ann", message.id)
    queue.cancel_if_no_readers("ann", message.id)

    assert queue.renew(claim) == "stopped"


# Locating events.


def test_an_event_is_located_in_its_groups_logs(queue):
    first, second, elsewhere = in_group("one"), in_group("one"), in_group("two")
    for message in (first, elsewhere):
        queue.enqueue(message, None, "enqueue")
        queue.finish(claim_next(queue), [("message", "x")])
    queue.enqueue(second, None, "enqueue")
    queue.append(claim_next(queue), [("message", "y")])

    for message in (first, second):
        for event in read_log(queue, message).events:
            assert queue.locate("ann", "one", event.id) == message.id
            assert queue.locate("ann", "two", event.id) in {None, elsewhere.id}
            assert queue.locate("bob", "one", event.id) is None


def test_a_message_is_found_by_its_clients_id_in_its_group(queue):
    message = in_group("one")
    queue.enqueue(message, "key with spaces", "enqueue")

    assert queue.find("ann", "one", "key with spaces") == message.id
    queue.finish(claim_next(queue), [("message", "x")])
    assert queue.find("ann", "one", "key with spaces") == message.id
    assert queue.find("ann", "one", "other") is None
    assert queue.find("ann", "", "key with spaces") is None
    assert queue.find("bob", "one", "key with spaces") is None


@pytest.mark.parametrize("event_id", ["nonsense", "1-1", "99999999999999999999-0", "-", "5", "1-1-1", "é-1"])
def test_an_unknown_event_is_not_located(queue, event_id):
    enqueue_and_finish(queue)

    assert queue.locate("ann", "", event_id) is None


def test_a_message_of_an_idle_group_is_claimed_as_it_is_enqueued(queue):
    message = new_message()

    receipt = queue.enqueue(message, None, "enqueue", claim=True)

    assert (receipt.message_id, receipt.ahead, receipt.claim.message, receipt.claim.token) == (message.id, 0, message, 1)
    assert queue.claim(NO_WAIT) is None
    assert [(position.state, position.position) for position in queue.positions("ann")] == [("running", 0)]
    assert published_positions(queue, message) == [1]
    queue.finish(receipt.claim, [])
    assert event_types(queue, message) == ["queued", "done"]


@pytest.mark.parametrize("running", [True, False], ids=["running", "waiting"])
def test_a_message_that_has_to_wait_is_not_claimed_as_it_is_enqueued(queue, running):
    before = enqueue(queue)
    first = claim_next(queue) if running else None

    receipt = queue.enqueue(new_message(), None, "enqueue", claim=True)

    assert (receipt.claim, receipt.ahead) == (None, 1)
    first = first or claim_next(queue)
    assert first.message.id == before.id
    queue.finish(first, [])
    assert claim_next(queue).message.id == receipt.message_id


def test_a_message_of_any_group_is_claimed_for_its_handler(queue):
    for_engine = enqueue(queue)
    enqueue(queue, handler="external")
    message, following = (enqueue(queue, "bob", handler="external") for _ in range(2))

    claim = queue.claim_for("external")

    assert (claim.message.id, claim.token) == (message.id, 1)
    assert queue.claim_for("external") is None, "the others wait for messages of their groups"
    assert claim_next(queue).message.id == for_engine.id
    assert queue.claim(NO_WAIT) is None, "it cannot be claimed twice"
    queue.finish(claim, [])
    assert claim_next(queue).message.id == following.id


def test_the_next_message_of_a_group_is_claimed_for_its_handler(queue):
    first = queue.enqueue(new_message(handler="external"), None, "enqueue", claim=True).claim
    message = enqueue(queue, handler="external")
    enqueue(queue, "bob", handler="external")
    assert queue.claim_next(first.message, "external") is None, "the first one is running"
    queue.finish(first, [])

    claim = queue.claim_next(first.message, "external")

    assert (claim.message.id, claim.token) == (message.id, 1)
    assert claim_next(queue).message.user_id == "bob"
    assert queue.claim(NO_WAIT) is None, "it cannot be claimed twice"
    queue.finish(claim, [])
    assert queue.claim_next(first.message, "external") is None
    assert event_types(queue, message) == ["queued", "done"]


def test_the_next_message_of_a_group_is_not_claimed_for_another_handler(queue):
    first = queue.enqueue(new_message(handler="external"), None, "enqueue", claim=True).claim
    message = enqueue(queue, handler="bundled")
    queue.finish(first, [])

    assert queue.claim_next(first.message, "external") is None
    assert claim_next(queue).message.id == message.id


def test_a_repeated_message_is_not_claimed_twice(queue):
    message = new_message()
    queue.enqueue(message, "once", "enqueue", claim=True)

    repeated = queue.enqueue(new_message(), "once", "enqueue", claim=True)

    assert (repeated.message_id, repeated.claim) == (message.id, None)


def test_forgetting_a_message_frees_its_client_message_id(queue):
    claim = queue.enqueue(new_message(), "once", "enqueue", claim=True).claim

    queue.finish(claim, [("message", "failed")], forget=True)
    second = new_message(text="other")

    assert queue.enqueue(second, "once", "enqueue").message_id == second.id
    assert event_types(queue, claim.message) == ["queued", "message", "done"]


def test_a_concluded_log_has_ended_while_its_group_stays_occupied(queue):
    message = enqueue(queue)
    claim = claim_next(queue)

    queue.conclude(claim, [("message", "last")])
    after = enqueue(queue)

    page = read_log(queue, message)
    assert (page.ended, [event.event for event in page.events]) == (True, ["queued", "message", "done"])
    assert queue.claim(NO_WAIT) is None
    assert [position.message_id for position in queue.positions("ann")] == [after.id]
    queue.finish(claim, [])
    assert claim_next(queue).message.id == after.id
    assert event_types(queue, message) == ["queued", "message", "done"]


def test_a_concluded_message_can_be_renewed_but_not_stopped(queue):
    message = enqueue(queue)
    claim = claim_next(queue)
    stop_calls = record_stops(queue)
    queue.conclude(claim, [])

    queue.stop("ann", message.id)
    enqueue(queue, on_busy="interrupt")

    assert queue.renew(claim) is None
    assert_no_more_stops(queue, stop_calls)
    assert event_types(queue, message) == ["queued", "done"]


def test_a_concluded_message_does_not_count_as_busy(queue):
    enqueue(queue)
    queue.conclude(claim_next(queue), [])

    queue.enqueue(new_message(), None, "reject")


def test_a_released_concluded_message_is_not_claimed_again(queue):
    message = enqueue(queue)
    claim = claim_next(queue)
    queue.append(claim, [("message", "one")])
    queue.conclude(claim, [("message", "last")])

    queue.release(claim)

    assert queue.claim(NO_WAIT) is None
    assert event_types(queue, message) == ["queued", "message", "message", "done"]


def test_a_concluded_message_stays_claimed_when_its_log_expires(make, clock):
    queue = make(retention=60)
    message = enqueue(queue)
    claim = claim_next(queue)
    queue.conclude(claim, [])
    clock.advance(61)
    queue.sweep()
    with pytest.raises(Expired):
        read_log(queue, message)
    enqueue(queue)

    assert queue.claim(NO_WAIT) is None
    queue.finish(claim, [])
    assert claim_next(queue)


def test_a_released_repeatable_message_restarts_at_most_three_times(queue):
    message = enqueue(queue, repeatable=True)

    for number in range(3):
        claim = claim_next(queue)
        assert claim.message.id == message.id
        queue.append(claim, [("message", f"try {number}")])
        queue.release(claim)
    last = claim_next(queue)
    queue.append(last, [("message", "try 3")])
    queue.release(last)

    said_events = [event.data for event in read_log(queue, message).events if event.event == "message"]
    assert said_events[:-1] == [
        text for number in range(4) for text in (f"try {number}", *(['{"type":"restart"}'] if number < 3 else []))
    ]
    assert json.loads(said_events[-1])["code"] == "interrupted"
    assert queue.claim(NO_WAIT) is None


def test_a_committed_repeatable_message_restarts_at_most_three_times(queue):
    message = enqueue(queue, repeatable=True)

    for number in range(4):
        claim = claim_next(queue)
        queue.append(claim, [("message", f"try {number}")])
        assert queue.commit(claim)
        queue.release(claim)
        second_claim = claim_next(queue)
        assert second_claim.was_started
        assert queue.restart(second_claim) == (number < 3)
        if number < 3:
            queue.release(second_claim)

    texts = [event.data for event in read_log(queue, message).events if event.event == "message"]
    assert texts == [text for number in range(3) for text in (f"try {number}", '{"type":"restart"}')] + ["try 3"]


def test_a_restarted_message_can_be_stopped_until_its_next_commit(queue):
    message = enqueue(queue, repeatable=True)
    claim = claim_next(queue)
    queue.append(claim, [("message", "one")])
    queue.commit(claim)
    queue.release(claim)
    second_claim = claim_next(queue)
    queue.restart(second_claim)

    queue.stop("ann", message.id)

    assert queue.renew(second_claim) == "stopped"
    assert not queue.commit(second_claim)


def test_a_committed_message_that_is_not_repeatable_does_not_restart(queue):
    enqueue(queue)
    claim = claim_next(queue)
    queue.append(claim, [("message", "one")])
    queue.commit(claim)
    queue.release(claim)
    second_claim = claim_next(queue)

    assert not queue.restart(second_claim)
    queue.finish(second_claim, [])
    with pytest.raises(LeaseLost):
        queue.restart(second_claim)


def test_a_released_message_without_output_gets_no_restart_event(queue):
    message = enqueue(queue, repeatable=True)
    queue.release(claim_next(queue))

    assert claim_next(queue).message.id == message.id
    assert "message" not in event_types(queue, message)


def test_a_repeatable_message_that_was_to_stop_does_not_restart(queue):
    message = enqueue(queue, repeatable=True)
    claim = claim_next(queue)
    queue.append(claim, [("message", "one")])
    queue.stop("ann", message.id)

    queue.release(claim)

    assert queue.claim(NO_WAIT) is None
    assert "restart" not in "".join(event.data for event in read_log(queue, message).events)


def test_event_ids_increase_across_a_restart_event(queue):
    message = enqueue(queue, repeatable=True)
    claim = claim_next(queue)
    queue.append(claim, [("message", "one")])
    queue.release(claim)
    second_claim = claim_next(queue)
    queue.append(second_claim, [("message", "two")])
    queue.finish(second_claim, [])

    events = read_log(queue, message).events
    numbers = [tuple(map(int, event.id.split("-"))) for event in events]
    assert numbers == sorted(set(numbers))
    for at, event in enumerate(events):
        assert [*queue.read("ann", message.id, event.id).events] == [*events[at + 1 :]]


# Webhook deliveries.

URL, OTHER_URL = "https://one.example/hook", "https://two.example/hook"


def enqueue_with_webhook(queue: Queue, *urls: str, user_id: str = "ann", **more: Any) -> Message:
    webhook = webhook_of(urls or [URL], {"org_id": "home", "client_message_id": None})
    return enqueue(queue, user_id, webhook=webhook, **more)


def end_with_webhook(queue: Queue, *urls: str, text: str = "bye") -> Message:
    message = enqueue_with_webhook(queue, *urls)
    queue.finish(claim_next(queue), [("message", text)])
    return message


def claim_delivery(queue: Queue) -> Delivery:
    delivery = queue.deliveries.claim(NO_WAIT) or queue.deliveries.claim(DEADLINE)  # At once, a clock that was moved is seen.
    assert delivery is not None
    return delivery


def claim_all_deliveries(queue: Queue) -> list[Delivery]:
    deliveries = []
    while delivery := queue.deliveries.claim(NO_WAIT):
        deliveries.append(delivery)
    return deliveries


def test_the_end_of_a_message_stores_a_delivery_for_each_url(queue):
    message = enqueue_with_webhook(queue, URL, OTHER_URL)
    assert claim_all_deliveries(queue) == []

    queue.finish(claim_next(queue), [("message", "first"), ("message", "last")])

    deliveries = sorted((claim_delivery(queue), claim_delivery(queue)), key=lambda delivery: delivery.url)
    assert [delivery.url for delivery in deliveries] == [URL, OTHER_URL]
    for delivery in deliveries:
        assert (delivery.message_id, delivery.user_id, delivery.event, delivery.tries) == (message.id, "ann", "last", 0)
        assert delivery.webhook == message.webhook
        assert delivery.ended_at == pytest.approx(deliveries[0].ended_at, abs=60)
        assert delivery.id == delivery_id(group_mark_of(message.id, "ann"), delivery.url, message.id)


def test_a_message_that_was_refused_when_it_was_sent_stores_no_delivery(queue):
    enqueue_with_webhook(queue)
    queue.finish(claim_next(queue), [("message", "failed")], forget=True)
    assert queue.deliveries.entries() == []


def test_undelivered_webhooks_are_counted(queue):
    assert queue.deliveries.count() == 0
    end_with_webhook(queue, URL, OTHER_URL)
    assert queue.deliveries.count() == 2

    queue.deliveries.complete(claim_delivery(queue))
    queue.deliveries.fail(claim_delivery(queue), "the response was 500")
    assert queue.deliveries.count() == 1


def test_a_message_without_a_webhook_stores_no_delivery(queue):
    enqueue_and_finish(queue)

    assert queue.deliveries.entries() == []


def test_a_concluded_message_stores_its_delivery_once(queue):
    enqueue_with_webhook(queue)
    claim = claim_next(queue)

    queue.conclude(claim, [("message", "end")])
    delivery = claim_delivery(queue)
    queue.finish(claim, [])

    assert delivery.event == "end"
    assert len(queue.deliveries.entries()) == 1


def test_a_stopped_waiting_message_stores_a_delivery(queue):
    running, waiting = enqueue_with_webhook(queue), enqueue_with_webhook(queue)
    claim_next(queue)

    queue.stop("ann", waiting.id)

    delivery = claim_delivery(queue)
    assert (delivery.message_id, json.loads(delivery.event)["type"]) == (waiting.id, "stopped")
    assert running.id != waiting.id


def test_a_stopped_only_message_stores_a_delivery(queue):
    message = enqueue_with_webhook(queue)

    queue.stop("ann", message.id)

    assert claim_delivery(queue).message_id == message.id


def test_a_released_message_that_finishes_stores_a_delivery(queue):
    enqueue_with_webhook(queue)
    claim = claim_next(queue)
    queue.append(claim, [("message", "begun")])

    queue.release(claim)

    assert json.loads(claim_delivery(queue).event)["code"] == "interrupted"


def test_a_message_cancelled_for_lack_of_readers_stores_a_delivery(queue, clock):
    message = enqueue_with_webhook(queue, cancel_on_disconnect=True)

    clock.advance(Limits().grace + 1)
    queue.sweep()

    assert claim_delivery(queue).message_id == message.id


def test_a_lane_is_delivered_one_by_one_in_order(queue):
    messages = [end_with_webhook(queue) for _ in range(3)]
    received = []

    for _ in messages:
        (delivery,) = claim_all_deliveries(queue)
        received.append(delivery.message_id)
        queue.deliveries.complete(delivery)

    assert received == [message.id for message in messages]
    assert queue.deliveries.entries() == []


def test_lanes_of_two_urls_and_of_two_users_are_independent(queue):
    end_with_webhook(queue, URL, OTHER_URL)
    enqueue_with_webhook(queue, user_id="bob")
    queue.finish(claim_next(queue), [("message", "")])

    deliveries = [claim_delivery(queue) for _ in range(3)]

    assert {(delivery.user_id, delivery.url) for delivery in deliveries} == {("ann", URL), ("ann", OTHER_URL), ("bob", URL)}


def test_a_failed_try_is_repeated_after_its_delay_and_later_ones_go_first(queue, clock):
    first, second = end_with_webhook(queue), end_with_webhook(queue)
    queue.deliveries.retry(claim_delivery(queue), 300, "the response was 500")

    queue.deliveries.complete(claim_delivery(queue))
    (entry,) = queue.deliveries.entries()
    assert (entry.message_id, entry.state, entry.tries, entry.error) == (first.id, "waiting", 1, "the response was 500")
    assert claim_all_deliveries(queue) == []
    clock.advance(301)

    again = claim_delivery(queue)
    assert (again.message_id, again.tries) == (first.id, 1)
    assert second.id != first.id


def test_a_released_delivery_holds_its_lane(queue, clock):
    first, second = end_with_webhook(queue), end_with_webhook(queue)

    queue.deliveries.release(claim_delivery(queue), 30)
    assert claim_all_deliveries(queue) == []
    clock.advance(31)

    delivery = claim_delivery(queue)
    assert (delivery.message_id, delivery.tries) == (first.id, 0)
    queue.deliveries.complete(delivery)
    assert claim_delivery(queue).message_id == second.id


def test_a_failed_delivery_is_listed_and_deleted_later(queue, clock):
    message = end_with_webhook(queue)

    queue.deliveries.fail(claim_delivery(queue), "no connection in time")
    (entry,) = queue.deliveries.entries()
    assert (entry.message_id, entry.state, entry.error) == (message.id, "failed", "no connection in time")
    assert claim_all_deliveries(queue) == []

    clock.advance(FAILED_SECONDS + 1)
    queue.sweep()
    assert claim_all_deliveries(queue) == []
    assert queue.deliveries.entries() == []


def test_a_failed_delivery_is_sent_again(queue):
    end_with_webhook(queue)
    delivery = claim_delivery(queue)
    queue.deliveries.fail(delivery, "the response was 500")

    assert queue.deliveries.send_again(delivery.id)

    again = claim_delivery(queue)
    assert (again.id, again.event, again.tries) == (delivery.id, delivery.event, 0)
    assert not queue.deliveries.send_again("0" * 72)


def test_a_waiting_claim_is_woken_by_a_new_delivery(queue):
    with ThreadPoolExecutor() as executor:
        claimed = executor.submit(queue.deliveries.claim, DEADLINE)
        message = end_with_webhook(queue)

        assert claimed.result(DEADLINE).message_id == message.id


def test_deliveries_hold_any_text(queue):
    text = json.dumps({"type": "complete", "response": {"responses": ['"\\/\u0000\u007f ü 😀 \u2028']}})

    end_with_webhook(queue, f"{URL}?a=%20/&b=ü", text=text)

    delivery = claim_delivery(queue)
    assert (delivery.event, delivery.url) == (text, f"{URL}?a=%20/&b=ü")
