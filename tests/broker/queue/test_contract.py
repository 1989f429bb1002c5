"""One suite for whatever keeps messages and their logs: each implementation of `Queue` passes all of it."""

import json
import queue as stdlib
import sys
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bff.broker.queue.base import PAGE_EVENTS, Claim, Counts, LeaseLost, Limits, Message, Page, Queue, QueuePosition, Receipt
from bff.broker.queue.journal import Journal
from bff.broker.queue.memory import MemoryQueue
from bff.broker.queue.redis import RedisQueue
from bff.broker.queue.redis.presence import FLEETING
from bff.errors import Busy, Expired, IdempotencyConflict, InvalidRequest, NotFound, ServerFull, TooLarge, TooManyRequests
from bff.ops.redis import Client, connect
from bff.upstream.message_ids import new_id
from tests.broker.queue.queues import AT_ONCE, claimed, left, message, positions, types, whole
from tests.live import DEADLINE, eventually
from tests.redis_server import RedisServer

DAY = 24 * 3600

Factory = Callable[..., Queue]


class Clock:
    """Seconds that pass only when a test says so."""

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
    def __init__(self, server: RedisServer) -> None:
        self.client = connect(server.url)
        self.clock = RedisClock(self.client)
        self._url = server.url
        self._made: list[RedisQueue] = []

    def make(self, **limits: float) -> Queue:
        self.client.flushall()
        queue = RedisQueue(connect(self._url), Limits(**limits))
        self._made.append(queue)
        queue.on_stop(lambda *_: None)
        assert eventually(lambda: dict(self.client.pubsub_numsub("chat:stop"))["chat:stop"] == len(self._made), DEADLINE)
        return queue

    def close(self) -> None:
        for queue in self._made:
            queue.close()
        self.client.close()


class RedisClock:
    """Redis's own clock cannot be moved: whatever is to happen at a moment is moved towards it instead."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def advance(self, seconds: float) -> None:
        for key in self._client.scan_iter() if seconds > 0 else ():
            if (left := self._client.pttl(key)) >= 0:
                self._client.pexpire(key, max(0, left - int(seconds * 1000)))
        for member in self._client.zrange(FLEETING, 0, -1):
            self._client.zincrby(FLEETING, -seconds * 1_000_000, member)


@pytest.fixture(params=["memory", "journal", "redis", pytest.param("appendonly", marks=pytest.mark.live)])
def implementation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    made: InMemory | InMemoryWithJournal | InRedis
    if request.param == "memory":
        made = InMemory()
    elif request.param == "journal":
        made = InMemoryWithJournal(tmp_path)
    else:
        made = InRedis(request.getfixturevalue(request.param))
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
def many_switches() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def finished(queue: Queue, user_id: str = "ann", text: str = "") -> Message:
    """A message that has been answered; nothing else may be waiting."""
    said = left(queue, user_id)
    queue.finish(claimed(queue), [("message", text)])
    return said


def stops(queue: Queue) -> "stdlib.Queue[str]":
    told: stdlib.Queue[str] = stdlib.Queue()
    queue.on_stop(lambda message_id, _: told.put(message_id))
    return told


def assert_told_nothing(queue: Queue, told: "stdlib.Queue[str]") -> None:
    """Whatever had been told would have come before this."""
    last = left(queue, "somebody else")
    while claimed(queue).message.id != last.id:
        pass
    queue.stop(last.user_id, last.id)

    assert told.get(timeout=DEADLINE) == last.id


# Order.


def test_messages_of_one_user_are_claimed_in_the_order_they_came(queue):
    said = [left(queue, text=str(number)) for number in range(5)]

    for one in said:
        claim = claimed(queue)
        assert claim.message == one
        queue.finish(claim, [])

    assert queue.claim(AT_ONCE) is None


def test_one_message_of_a_user_runs_at_a_time(queue):
    left(queue)
    second = left(queue)
    first_claim = claimed(queue)

    assert queue.claim(AT_ONCE) is None
    queue.finish(first_claim, [])
    assert claimed(queue).message.id == second.id


def test_users_do_not_wait_for_each_other(queue):
    said = [left(queue, user_id) for user_id in ("ann", "bob", "cy")]

    running = [claimed(queue).message.id for _ in said]

    assert running == [one.id for one in said]


def test_a_user_with_many_messages_does_not_keep_others_waiting(queue):
    for _ in range(5):
        left(queue, "ann")
    left(queue, "bob")

    queue.finish(claimed(queue), [])

    assert claimed(queue).message.user_id == "bob"


def test_a_claim_holds_what_the_engine_is_told(queue):
    original = Message(
        "m-1", "a/b?c#ä", {"message": "Ἐν ἀρχῇ\u2028\0", "deep": {"list": [1, None]}}, size=40, cancel_on_disconnect=True
    )
    queue.enqueue(original, "client's own", "enqueue")

    assert claimed(queue).message == original


def test_nobody_claims_what_is_not_there(queue):
    assert queue.claim(AT_ONCE) is None
    assert queue.claim(0.01) is None


def test_a_claim_waits_for_a_message(queue):
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(queue.claim, DEADLINE)
        said = left(queue)

        assert waiting.result(DEADLINE).message.id == said.id


def test_a_claim_waits_for_a_user_to_be_free(queue):
    left(queue)
    second = left(queue)
    running = claimed(queue)

    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(queue.claim, DEADLINE)
        queue.finish(running, [])

        assert waiting.result(DEADLINE).message.id == second.id


# Places.


def test_a_ticket_says_how_many_are_ahead(queue):
    tickets = [queue.enqueue(message(), None, "enqueue").ahead for _ in range(3)]
    claimed(queue)

    assert tickets == [0, 1, 2]
    assert queue.enqueue(message(), None, "enqueue").ahead == 3, "the running one counts"
    assert queue.enqueue(message("bob"), None, "enqueue").ahead == 0


def test_a_ticket_names_its_message(queue):
    said = message()

    assert queue.enqueue(said, None, "enqueue").message_id == said.id


def test_a_users_places_are_told_in_order(queue):
    first, second, third = left(queue), left(queue), left(queue)
    left(queue, "bob")
    claimed(queue)

    assert queue.positions("ann") == [
        QueuePosition(first.id, "running", 0),
        QueuePosition(second.id, "queued", 1),
        QueuePosition(third.id, "queued", 2),
    ]
    assert queue.positions("nobody") == []


def test_a_finished_message_has_no_place(queue):
    finished(queue)

    assert queue.positions("ann") == []


def test_a_reader_is_told_its_position_as_it_falls(queue):
    first, second, third = left(queue), left(queue), left(queue)

    for _ in range(3):
        queue.finish(claimed(queue), [])

    assert [positions(queue, said) for said in (first, second, third)] == [[1], [2, 1], [3, 2, 1]]


def test_a_position_that_stays_is_not_told_again(queue):
    left(queue)
    claimed(queue)
    second = left(queue)

    left(queue)
    left(queue, "bob")

    assert positions(queue, second) == [1]


def test_counts_are_of_users_and_of_what_runs(queue):
    for user_id in ("ann", "ann", "bob", "cy"):
        left(queue, user_id)
    running = [claimed(queue), claimed(queue)]

    assert queue.counts() == Counts(queues=3, running=2)
    queue.finish(running[1], [])
    assert queue.counts() == Counts(queues=2, running=1)


def test_an_empty_queue_counts_nothing(queue):
    finished(queue)

    assert queue.counts() == Counts(queues=0, running=0)


# Logs.


def test_words_come_back_as_they_were_written(queue):
    entries = [
        ("processing", ""),
        ("message", '{"text":"Ἐν ἀρχῇ \u2028 \\n 👨‍👩‍👧‍👦"}'),
        ("message", "a\nb\x00c"),
        ("message", " x "),
    ]
    said = left(queue)
    claim = claimed(queue)

    queue.append(claim, entries[:1])
    queue.append(claim, entries[1:3])
    queue.append(claim, [])
    queue.finish(claim, entries[3:])

    assert [(event.event, event.data) for event in whole(queue, said).events[1:-1]] == entries


def test_a_log_is_over_once_it_is_finished_and_ends_with_done(queue):
    said = left(queue)
    claim = claimed(queue)
    queue.append(claim, [("processing", "")])

    before = whole(queue, said)
    queue.finish(claim, [("message", "bye")])
    after = whole(queue, said)

    assert not before.over
    assert after.over
    assert [event.event for event in after.events] == ["queued", "processing", "message", "done"]
    assert json.loads(after.events[-1].data) == {"message_id": said.id}


def test_a_log_goes_on_after_any_id(queue, clock):
    said = left(queue)
    claim = claimed(queue)
    for number in range(5):
        queue.append(claim, [("message", f"{number}a"), ("message", f"{number}b")])
        clock.advance(0.001 * (number % 2))
    queue.finish(claim, [])

    events = list(whole(queue, said).events)

    assert len(events) == 12
    for number, event in enumerate(events):
        assert queue.read("ann", said.id, event.id) == Page(events[number + 1 :], True)


def test_ids_go_up_even_when_the_clock_goes_back(queue, clock):
    said = left(queue)
    claim = claimed(queue)
    for number in range(5):
        queue.append(claim, [("message", str(number))])
        clock.advance(-10)

    last_but_one = whole(queue, said).events[-2]

    assert [event.data for event in queue.read("ann", said.id, last_but_one.id).events] == ["4"]


def test_an_id_is_what_a_header_can_carry(queue):
    said = finished(queue)

    for event in whole(queue, said).events:
        assert event.id.isascii()
        assert event.id.isprintable()
        assert 0 < len(event.id) <= 64
        assert " " not in event.id


def test_nothing_comes_after_the_end(queue):
    said, running = finished(queue), left(queue)
    last = whole(queue, said).events[-1].id

    assert queue.read("ann", said.id, last) == Page([], True)
    assert queue.read("ann", running.id, whole(queue, running).events[-1].id) == Page([], False)
    assert queue.read("ann", said.id, "9999999999999-0") == Page([], True)


@pytest.mark.parametrize("length", [PAGE_EVENTS - 1, PAGE_EVENTS, PAGE_EVENTS + 1, 2 * PAGE_EVENTS + 7])
def test_a_long_log_is_read_page_by_page(queue, length):
    said = left(queue)
    claim = claimed(queue)
    entries = [("message", str(number)) for number in range(length - 2)]  # Beside its position and its end.
    queue.append(claim, entries)
    queue.finish(claim, [])

    pages = [queue.read("ann", said.id, "")]
    while pages[-1].more:
        assert len(pages[-1].events) == PAGE_EVENTS
        assert not pages[-1].over
        pages.append(queue.read("ann", said.id, pages[-1].events[-1].id))

    assert pages[-1].over
    assert [event[:2] for page in pages for event in page.events][1:-1] == entries


def test_who_reads_a_long_log_that_goes_on_is_woken_for_what_is_new_only(queue):
    said = left(queue)
    claim = claimed(queue)
    queue.append(claim, [("message", str(number)) for number in range(2 * PAGE_EVENTS)])

    with ThreadPoolExecutor() as threads:
        following = threads.submit(followed, queue, said)
        queue.finish(claim, [("message", "bye")])

        assert following.result(DEADLINE) == [*(str(number) for number in range(2 * PAGE_EVENTS)), "bye"]


@pytest.mark.parametrize(
    "after",
    ["x", "-", "1", "1-", "-1", "1-1-1", "-1-1", "1.5-0", "1 - 1", " 1-1", "1-1\n", "$", "+", "٣-٣", "²-1", "9" * 50 + "-0"],
)
def test_an_id_that_is_none_of_ours_is_refused(queue, after):
    said = left(queue)

    with pytest.raises(InvalidRequest):
        queue.read("ann", said.id, after)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=45) | st.from_regex(r"[0-9]{1,25}-[0-9]{1,25}", fullmatch=True))
def test_any_id_at_all_is_read_after_or_refused(queue, after):
    said = left(queue, user_id=str(uuid.uuid4()))

    try:
        page = queue.read(said.user_id, said.id, after)
    except InvalidRequest:
        return

    assert set(page.events) <= set(whole(queue, said).events)


@pytest.mark.parametrize("user_id", ["bob", "", "an", "ann "])
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "unknown"])
def test_nobody_reads_or_stops_a_message_that_is_not_theirs(queue, user_id, kept):
    message_id = finished(queue, "ann").id if kept else "unknown"

    with pytest.raises(NotFound):
        queue.read(user_id, message_id, "")
    with pytest.raises(NotFound):
        queue.stop(user_id, message_id)


def test_a_message_that_never_was_is_not_found(queue):
    for message_id in ("unknown", ""):
        with pytest.raises(NotFound):
            queue.read("ann", message_id, "")
        with pytest.raises(NotFound):
            queue.stop("ann", message_id)


def test_nobody_stops_a_running_message_that_is_not_theirs(queue):
    told = stops(queue)
    said = left(queue)
    claimed(queue)

    with pytest.raises(NotFound):
        queue.stop("bob", said.id)

    assert_told_nothing(queue, told)


def test_a_reader_is_woken_by_each_change(queue):
    first, second = left(queue), left(queue)
    woken = threading.Event()

    def heard() -> list[str]:
        assert woken.wait(DEADLINE)
        woken.clear()
        return types(queue, second)

    with queue.subscribe(second.user_id, second.id, woken.set):
        running = claimed(queue)
        assert heard() == ["queued", "queued"]
        queue.finish(running, [])
        running = claimed(queue)
        queue.append(running, [("message", "a")])
        assert heard() == ["queued", "queued", "message"]
        queue.finish(running, [("message", "b")])
        assert heard() == ["queued", "queued", "message", "message", "done"]
    assert whole(queue, first).over


def test_a_reader_is_woken_when_its_message_is_stopped(queue):
    said = left(queue)
    woken = threading.Event()

    with queue.subscribe(said.user_id, said.id, woken.set):
        queue.stop("ann", said.id)
        assert woken.wait(DEADLINE)

    assert whole(queue, said).over


def test_every_reader_is_woken(queue):
    said = left(queue)
    claim = claimed(queue)
    woken = [threading.Event() for _ in range(3)]

    with ExitStack() as listening:
        for one in woken:
            listening.enter_context(queue.subscribe(said.user_id, said.id, one.set))
        queue.append(claim, [("message", "a")])

        assert all(one.wait(DEADLINE) for one in woken)


def test_a_reader_that_left_is_not_woken(queue):
    said = left(queue)
    claim = claimed(queue)
    gone, there = threading.Event(), threading.Event()

    with queue.subscribe(said.user_id, said.id, there.set):
        with queue.subscribe(said.user_id, said.id, gone.set):
            pass
        gone.clear()
        queue.append(claim, [("message", "a")])
        assert there.wait(DEADLINE)

    assert not gone.is_set()


# Stopping.


def test_a_waiting_message_that_is_stopped_is_never_claimed(queue):
    said = left(queue)

    queue.stop("ann", said.id)

    assert queue.claim(AT_ONCE) is None
    assert queue.positions("ann") == []
    assert types(queue, said) == ["queued", "message", "done"]
    assert whole(queue, said).over
    assert json.loads(whole(queue, said).events[1].data) == {
        "type": "stopped",
        "response": {"responses": [], "response_language": None, "voice_audio_base64": None},
    }


@pytest.mark.parametrize("which", [0, 1, 2])
def test_stopping_one_waiting_message_leaves_the_others(queue, which):
    said = [left(queue) for _ in range(3)]
    stopped = said.pop(which)

    queue.stop("ann", stopped.id)

    assert queue.positions("ann") == [QueuePosition(said[0].id, "queued", 1), QueuePosition(said[1].id, "queued", 2)]
    assert [positions(queue, one)[-1] for one in said] == [1, 2]
    for one in said:
        claim = claimed(queue)
        assert claim.message.id == one.id
        queue.finish(claim, [])


def test_a_user_whose_waiting_messages_were_all_stopped_can_go_on(queue):
    running, waiting = left(queue), left(queue)
    claim = claimed(queue)

    queue.stop("ann", waiting.id)
    queue.finish(claim, [])
    assert queue.claim(AT_ONCE) is None
    again = left(queue)

    assert claimed(queue).message.id == again.id
    assert whole(queue, running).over


def test_a_running_messages_worker_is_told_to_stop(queue):
    told = stops(queue)
    said = left(queue)
    claim = claimed(queue)

    queue.stop("ann", said.id)

    assert told.get(timeout=DEADLINE) == said.id
    assert queue.positions("ann") == [QueuePosition(said.id, "running", 0, stopping=True)]
    queue.append(claim, [("message", "still here")])
    assert not whole(queue, said).over
    queue.finish(claim, [])
    assert whole(queue, said).over


def test_all_workers_are_told_to_stop(queue):
    told = [stops(queue), stops(queue)]
    said = left(queue)
    claimed(queue)

    queue.stop("ann", said.id)

    assert [one.get(timeout=DEADLINE) for one in told] == [said.id, said.id]


def test_nobody_is_told_of_a_waiting_message_that_is_stopped(queue):
    told = stops(queue)

    queue.stop("ann", left(queue).id)

    assert_told_nothing(queue, told)


def test_stopping_what_is_finished_does_nothing(queue):
    told = stops(queue)
    said = finished(queue)
    before = whole(queue, said)

    queue.stop("ann", said.id)

    assert whole(queue, said) == before
    assert_told_nothing(queue, told)


def test_stopping_again_what_was_stopped_does_nothing(queue):
    waiting = left(queue)
    queue.stop("ann", waiting.id)
    before = whole(queue, waiting)

    queue.stop("ann", waiting.id)

    assert whole(queue, waiting) == before


def test_stopping_again_what_has_been_stopped_and_finished_does_nothing(queue):
    told = stops(queue)
    said = left(queue)
    claim = claimed(queue)
    queue.stop("ann", said.id)
    queue.finish(claim, [])
    assert told.get(timeout=DEADLINE) == said.id

    queue.stop("ann", said.id)

    assert_told_nothing(queue, told)


def test_a_stop_is_one_messages(queue):
    told = stops(queue)
    first, second = left(queue), left(queue)
    claim = claimed(queue)
    queue.stop("ann", first.id)
    queue.finish(claim, [])
    claimed(queue)

    assert told.get(timeout=DEADLINE) == first.id
    assert queue.positions("ann") == [QueuePosition(second.id, "running", 0)]
    assert_told_nothing(queue, told)


def test_a_worker_that_could_not_hear_learns_that_it_shall_stop(queue):
    said = left(queue)
    claim = claimed(queue)
    assert not queue.renew(claim)

    queue.stop("ann", said.id)

    assert queue.renew(claim)


# Handing back.


def test_a_claim_that_is_handed_back_is_the_users_next_again(queue):
    first, second = left(queue), left(queue)
    claim = claimed(queue)
    queue.append(claim, [("processing", "")], started=False)

    queue.release(claim)

    assert queue.positions("ann") == [QueuePosition(first.id, "queued", 1), QueuePosition(second.id, "queued", 2)]
    again = claimed(queue)
    assert again.message == first
    assert again.token > claim.token
    queue.finish(again, [("message", "bye")])
    assert types(queue, first) == ["queued", "processing", "queued", "message", "done"]
    assert positions(queue, second) == [2, 1, 2, 1]


def test_what_has_said_something_is_not_begun_again(queue):
    first, second = left(queue), left(queue)
    claim = claimed(queue)
    queue.append(claim, [("message", "well, ")])

    queue.release(claim)

    assert types(queue, first) == ["queued", "message", "message", "done"]
    assert json.loads(whole(queue, first).events[-2].data)["code"] == "interrupted"
    assert claimed(queue).message.id == second.id


def test_what_was_to_stop_and_is_handed_back_is_stopped(queue):
    said = left(queue)
    claim = claimed(queue)
    queue.stop("ann", said.id)

    queue.release(claim)

    assert json.loads(whole(queue, said).events[-2].data)["type"] == "stopped"
    assert queue.claim(AT_ONCE) is None


# Fencing.


def writes(queue: Queue, claim: Claim) -> list[Callable[[], None]]:
    return [
        lambda: queue.renew(claim),
        lambda: queue.append(claim, [("message", "late")]),
        lambda: queue.finish(claim, [("message", "late")]),
        lambda: queue.release(claim),
    ]


def test_a_claim_can_be_renewed_while_it_holds(queue):
    said = left(queue)
    claim = claimed(queue)

    queue.renew(claim)

    assert types(queue, said) == ["queued"]


def test_nothing_is_written_after_the_end(queue):
    said = left(queue)
    claim = claimed(queue)
    queue.finish(claim, [])
    before = whole(queue, said)

    for write in writes(queue, claim):
        with pytest.raises(LeaseLost):
            write()

    assert whole(queue, said) == before


def test_a_late_writer_does_not_touch_the_users_next_message(queue):
    left(queue)
    second = left(queue)
    late = claimed(queue)
    queue.finish(late, [])
    claimed(queue)
    before = whole(queue, second)

    for write in writes(queue, late):
        with pytest.raises(LeaseLost):
            write()

    assert whole(queue, second) == before
    assert queue.positions("ann") == [QueuePosition(second.id, "running", 0)]


@pytest.mark.parametrize(
    "forge",
    [
        lambda claim: claim._replace(token=claim.token - 1),
        lambda claim: claim._replace(message=message("ann")),
        lambda claim: claim._replace(message=message("bob")),
    ],
    ids=["an older token", "another message", "another user"],
)
def test_a_claim_that_was_never_given_holds_nothing(queue, forge):
    said = left(queue)
    claim = claimed(queue)

    for write in writes(queue, forge(claim)):
        with pytest.raises(LeaseLost):
            write()

    assert types(queue, said) == ["queued"]
    queue.finish(claim, [])


# The same message twice.


def test_the_same_message_again_is_the_one_that_is_kept(queue):
    first = queue.enqueue(message(), "id-1", "enqueue")

    again = queue.enqueue(message(), "id-1", "enqueue")

    assert again == first
    assert queue.positions("ann") == [QueuePosition(first.message_id, "queued", 1)]


def test_the_same_message_again_has_the_place_it_has_by_now(queue):
    left(queue)
    said = message()
    aheads = [queue.enqueue(said, "id-1", "enqueue").ahead]

    def again() -> None:
        ticket = queue.enqueue(message(), "id-1", "enqueue")
        assert ticket.message_id == said.id
        aheads.append(ticket.ahead)

    again()
    for _ in range(2):
        running = claimed(queue)
        again()
        queue.finish(running, [])
        again()

    assert aheads == [1, 1, 1, 0, 0, 0]


def test_the_same_id_for_other_words_is_a_conflict(queue):
    first = queue.enqueue(message(text="one"), "id-1", "enqueue")

    with pytest.raises(IdempotencyConflict):
        queue.enqueue(message(text="two"), "id-1", "enqueue")

    assert [place.message_id for place in queue.positions("ann")] == [first.message_id]


def test_the_order_of_a_messages_fields_means_nothing(queue):
    first = queue.enqueue(Message("m-1", "ann", {"a": 1, "b": {"c": 2, "d": 3}}), "id-1", "enqueue")

    again = queue.enqueue(Message("m-2", "ann", {"b": {"d": 3, "c": 2}, "a": 1}), "id-1", "enqueue")

    assert again == first


def test_another_users_same_id_is_another_message(queue):
    ann = queue.enqueue(message("ann", "one"), "id-1", "enqueue")

    bob = queue.enqueue(message("bob", "two"), "id-1", "enqueue")

    assert ann.message_id != bob.message_id
    assert bob.ahead == 0


def test_without_an_id_the_same_words_are_two_messages(queue):
    left(queue, text="yes")
    left(queue, text="yes")

    assert len(queue.positions("ann")) == 2


@pytest.mark.usefixtures("many_switches")
def test_the_same_message_from_many_threads_at_once_is_one(queue):
    barrier = threading.Barrier(50)

    def say() -> str:
        barrier.wait(DEADLINE)
        return queue.enqueue(message(), "id-1", "enqueue").message_id

    with ThreadPoolExecutor(50) as threads:
        ids = {saying.result(DEADLINE) for saying in [threads.submit(say) for _ in range(50)]}

    assert [place.message_id for place in queue.positions("ann")] == list(ids)


def test_the_same_message_again_is_neither_busy_nor_too_much(make):
    queue = make(depth_per_user=1, waiting_bytes=10)
    first = queue.enqueue(message(size=10), "id-1", "enqueue")

    for on_busy in ("enqueue", "reject", "interrupt"):
        assert queue.enqueue(message(size=10), "id-1", on_busy) == first


def test_a_message_that_was_refused_may_come_again(make):
    queue = make(depth_per_user=1)
    waiting = left(queue)
    for on_busy, refusal in (("enqueue", TooManyRequests), ("reject", Busy)):
        with pytest.raises(refusal):
            queue.enqueue(message(text="later"), "id-1", on_busy)

    queue.stop("ann", waiting.id)

    assert queue.enqueue(message(text="later"), "id-1", "reject").ahead == 0


def test_the_same_message_again_whose_log_is_gone_is_expired(make, clock):
    queue = make(retention=600)
    first = queue.enqueue(message(), "id-1", "enqueue")
    queue.finish(claimed(queue), [])
    clock.advance(601)
    queue.sweep()

    with pytest.raises(Expired) as refused:
        queue.enqueue(message(), "id-1", "enqueue")

    assert refused.value.message_id == first.message_id


def test_after_a_day_the_same_id_is_a_new_message(make, clock):
    queue = make(retention=600)
    first = queue.enqueue(message(), "id-1", "enqueue")
    queue.finish(claimed(queue), [])
    clock.advance(DAY + 1)
    queue.sweep()

    again = queue.enqueue(message(text="other words"), "id-1", "enqueue")

    assert again.message_id != first.message_id


# Limits.


def test_too_many_waiting_messages_of_one_user_are_refused(make):
    queue = make(depth_per_user=2)
    left(queue)
    claimed(queue)
    said = [left(queue), left(queue)]

    with pytest.raises(TooManyRequests):
        queue.enqueue(message(), None, "enqueue")

    assert [place.message_id for place in queue.positions("ann")[1:]] == [one.id for one in said]
    left(queue, "bob")


@pytest.mark.parametrize("make_room", ["claim", "stop"])
def test_a_message_less_that_waits_makes_room_for_another(make, make_room):
    queue = make(depth_per_user=1)
    waiting = left(queue)

    if make_room == "claim":
        claimed(queue)
    else:
        queue.stop("ann", waiting.id)

    assert left(queue)


# Redis has a bound of its own for all users together: test_redis.py.
@pytest.mark.parametrize("implementation", ["memory", "journal"], indirect=True)
def test_too_many_waiting_bytes_of_all_users_are_refused(make):
    queue = make(waiting_bytes=100)
    left(queue, "ann", size=60)
    left(queue, "bob", size=40)

    with pytest.raises(ServerFull):
        queue.enqueue(message("cy", size=1), None, "enqueue")

    assert queue.counts().queues == 2
    assert queue.positions("cy") == []


@pytest.mark.parametrize("implementation", ["memory"], indirect=True)
@pytest.mark.parametrize("make_room", ["finish", "stop"])
def test_the_bytes_of_a_message_that_ends_make_room(make, make_room):
    queue = make(waiting_bytes=100)
    said = left(queue, size=100)

    if make_room == "finish":
        claim = claimed(queue)
        with pytest.raises(ServerFull):
            queue.enqueue(message("bob", size=1), None, "enqueue")
        queue.finish(claim, [])
    else:
        queue.stop("ann", said.id)

    assert left(queue, "bob", size=100)


def test_who_is_busy_can_be_refused(queue):
    running = left(queue, on_busy="reject")
    with pytest.raises(Busy):
        queue.enqueue(message(), None, "reject")
    claim = claimed(queue)
    with pytest.raises(Busy):
        queue.enqueue(message(), None, "reject")

    assert queue.positions("ann") == [QueuePosition(running.id, "running", 0)]
    assert queue.enqueue(message("bob"), None, "reject").ahead == 0
    queue.finish(claim, [])
    assert queue.enqueue(message(), None, "reject").ahead == 0


def test_who_is_busy_can_be_interrupted(queue):
    told = stops(queue)
    running, waiting = left(queue), left(queue)
    claim = claimed(queue)

    ticket = queue.enqueue(hurry := message(), None, "interrupt")

    assert told.get(timeout=DEADLINE) == running.id
    assert ticket[:2] == (hurry.id, 1)
    assert [place.message_id for place in queue.positions("ann")] == [running.id, hurry.id, waiting.id]
    assert positions(queue, waiting) == [2, 1, 2]
    queue.finish(claim, [])
    assert claimed(queue).message.id == hurry.id


def test_who_is_not_busy_cannot_be_interrupted(queue):
    told = stops(queue)

    ticket = queue.enqueue(message(), None, "interrupt")

    assert ticket.ahead == 0
    assert_told_nothing(queue, told)


def test_an_interruption_that_is_refused_interrupts_nobody(make):
    queue = make(depth_per_user=1)
    told = stops(queue)
    left(queue)
    claimed(queue)
    left(queue)

    with pytest.raises(TooManyRequests):
        queue.enqueue(message(), None, "interrupt")

    assert_told_nothing(queue, told)


# What is kept, and how long.


def test_a_finished_log_is_kept_for_a_while_then_expired_for_a_day_then_unknown(make, clock):
    queue = make(retention=600)
    said = finished(queue)

    def ask() -> None:
        queue.sweep()
        whole(queue, said)

    clock.advance(599)
    ask()
    clock.advance(2)
    for _ in range(2):
        with pytest.raises(Expired):
            ask()
        with pytest.raises(Expired):
            queue.stop("ann", said.id)
        with pytest.raises(NotFound):
            queue.read("bob", said.id, "")
        clock.advance(DAY - 3)
    clock.advance(10)
    with pytest.raises(NotFound):
        ask()


def test_how_long_a_log_is_kept_counts_from_its_end(make, clock):
    queue = make(retention=600)
    said = left(queue)
    clock.advance(2000)
    queue.sweep()
    claim = claimed(queue)
    clock.advance(2000)
    queue.sweep()
    queue.finish(claim, [])
    clock.advance(599)
    queue.sweep()

    assert whole(queue, said).over


def test_a_log_over_its_bound_takes_no_more_but_its_end(make):
    queue = make(log_bytes=100_000)
    said = left(queue)
    claim = claimed(queue)
    queue.append(claim, [("message", "x" * 80_000)])

    with pytest.raises(TooLarge):
        queue.append(claim, [("message", "y" * 15_000), ("message", "z" * 15_000)])

    assert types(queue, said) == ["queued", "message"], "all of it or nothing"
    queue.renew(claim)
    queue.finish(claim, [("message", "e" * 50_000)])
    assert types(queue, said) == ["queued", "message", "message", "done"]


def test_a_log_is_measured_in_bytes(make):
    queue = make(log_bytes=100_000)
    left(queue)
    claim = claimed(queue)

    with pytest.raises(TooLarge):
        queue.append(claim, [("message", "語" * 50_000)])


def test_the_oldest_finished_logs_go_first(make):
    queue = make(log_bytes=100_000)
    oldest, middle = finished(queue, text="x" * 35_000), finished(queue, text="x" * 35_000)

    newest = finished(queue, text="x" * 35_000)

    with pytest.raises(Expired):
        whole(queue, oldest)
    assert whole(queue, middle).over
    assert whole(queue, newest).over


def test_a_log_that_runs_is_never_let_go_of(make, clock):
    queue = make(log_bytes=100_000, retention=1)
    running = left(queue, "ann")
    queue.append(claimed(queue), [("message", "x" * 90_000)])

    for _ in range(5):
        finished(queue, "bob", "x" * 90_000)
        clock.advance(10)
        queue.sweep()

    assert types(queue, running) == ["queued", "message"]


# Answers that are for their readers only.


@pytest.fixture
def fleeting(make) -> Queue:
    return make(grace=5)


def unread(queue: Queue, clock: Clock, seconds: float) -> None:
    """Some time passes, of which the queue is told."""
    clock.advance(seconds)
    queue.sweep()


def test_a_waiting_message_that_nobody_reads_is_stopped(fleeting, clock):
    said = left(fleeting, cancel_on_disconnect=True)

    unread(fleeting, clock, 4.9)
    assert not whole(fleeting, said).over
    unread(fleeting, clock, 0.2)

    assert types(fleeting, said) == ["queued", "message", "done"]
    assert fleeting.claim(AT_ONCE) is None


def test_a_running_message_that_nobody_reads_is_told_to_stop_once(fleeting, clock):
    told = stops(fleeting)
    said = left(fleeting, cancel_on_disconnect=True)
    claimed(fleeting)

    for _ in range(3):
        unread(fleeting, clock, 6)

    assert told.get(timeout=DEADLINE) == said.id
    assert_told_nothing(fleeting, told)


def test_an_answer_is_not_stopped_while_somebody_reads(fleeting, clock):
    said = left(fleeting, cancel_on_disconnect=True)

    with fleeting.subscribe(said.user_id, said.id, lambda: None):
        with fleeting.subscribe(said.user_id, said.id, lambda: None):
            unread(fleeting, clock, 60)
        unread(fleeting, clock, 60)

    assert not whole(fleeting, said).over


def test_the_grace_begins_when_the_last_reader_has_left(fleeting, clock):
    said = left(fleeting, cancel_on_disconnect=True)
    with fleeting.subscribe(said.user_id, said.id, lambda: None):
        unread(fleeting, clock, 60)

    unread(fleeting, clock, 4.9)
    with fleeting.subscribe(said.user_id, said.id, lambda: None):
        unread(fleeting, clock, 1)
    unread(fleeting, clock, 4.9)
    assert not whole(fleeting, said).over
    unread(fleeting, clock, 0.2)

    assert whole(fleeting, said).over


def test_an_answer_that_is_for_later_needs_no_reader(fleeting, clock):
    waiting, running = left(fleeting, "ann"), left(fleeting, "bob")
    told = stops(fleeting)

    unread(fleeting, clock, 3600)

    assert not whole(fleeting, waiting).over
    assert not whole(fleeting, running).over
    assert_told_nothing(fleeting, told)


def test_several_that_nobody_reads_are_stopped_in_one_sweep(fleeting, clock):
    said = [left(fleeting, cancel_on_disconnect=number != 1) for number in range(4)]

    unread(fleeting, clock, 6)

    assert [whole(fleeting, one).over for one in said] == [True, False, True, True]
    assert fleeting.positions("ann") == [QueuePosition(said[1].id, "queued", 1)]
    assert claimed(fleeting).message.id == said[1].id


# Everything at once.


class Model:
    """What a queue must do, in the simplest words: a list a user."""

    DEPTH = 3

    def __init__(self, most: int) -> None:
        self.most = most
        self.waiting: dict[str, list[Message]] = defaultdict(list)
        self.running: dict[str, Claim] = {}
        self.over: list[Message] = []

    def open(self) -> list[Message]:
        waiting = [said for line in self.waiting.values() for said in line]
        return waiting + [held.message for held in self.running.values()]

    def refusal(self, user_id: str, on_busy: str) -> type[Exception] | None:
        if on_busy == "reject" and (self.waiting[user_id] or user_id in self.running):
            return Busy
        if len(self.waiting[user_id]) == self.DEPTH:
            return TooManyRequests
        return ServerFull if len(self.open()) == self.most else None


def say(queue: Queue, model: Model, user_id: str, on_busy: str) -> None:
    said, line, busy = message(user_id, size=100), model.waiting[user_id], user_id in model.running
    if refusal := model.refusal(user_id, on_busy):
        with pytest.raises(refusal):
            queue.enqueue(said, None, on_busy)
        return
    line.insert(0 if on_busy == "interrupt" and busy else len(line), said)
    assert queue.enqueue(said, None, on_busy)[:2] == (said.id, line.index(said) + busy)


def claim(queue: Queue, model: Model) -> None:
    free = [user_id for user_id, line in model.waiting.items() if line and user_id not in model.running]
    given = queue.claim(AT_ONCE)
    assert (given is not None) == bool(free)
    if given:
        assert given.message.user_id in free
        assert given.message == model.waiting[given.message.user_id].pop(0)
        model.running[given.message.user_id] = given


def finish(queue: Queue, model: Model, user_id: str) -> None:
    if held := model.running.pop(user_id, None):
        queue.finish(held, [("message", "bye")])
        model.over.append(held.message)


def stop(queue: Queue, model: Model, number: int) -> None:
    if said := dict(enumerate(model.open() + model.over)).get(number):
        queue.stop(said.user_id, said.id)
        if said in model.waiting[said.user_id]:
            model.waiting[said.user_id].remove(said)
            model.over.append(said)


def sweep(queue: Queue, _: Model) -> None:
    queue.sweep()


users = st.sampled_from(["ann", "bob", "cy"])
steps = st.one_of(
    st.tuples(st.just(say), users, st.sampled_from(["enqueue", "reject", "interrupt"])),
    st.tuples(st.just(claim)),
    st.tuples(st.just(finish), users),
    st.tuples(st.just(stop), st.integers(0, 20)),
    st.tuples(st.just(sweep)),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, max_size=40))
def test_whatever_happens_every_message_keeps_its_place_and_gets_its_end(make, implementation, taken):
    model = Model(most=7 if isinstance(implementation, InMemory) else 1000)
    queue = make(depth_per_user=Model.DEPTH, waiting_bytes=model.most * 100)

    for step, *of in taken:
        step(queue, model, *of)
        check(queue, model)
    while model.open():
        claim(queue, model)
        for user_id in list(model.running):
            finish(queue, model, user_id)
        check(queue, model)

    assert queue.counts() == Counts(0, 0)
    left(queue, size=model.most * 100)


def check(queue: Queue, model: Model) -> None:
    for user_id, line in model.waiting.items():
        running = [QueuePosition(model.running[user_id].message.id, "running", 0)] if user_id in model.running else []
        found = [place._replace(stopping=False) for place in queue.positions(user_id)]
        assert found == running + [QueuePosition(said.id, "queued", place) for place, said in enumerate(line, start=1)]
        assert [positions(queue, said)[-1] for said in line] == list(range(1, len(line) + 1))
    for said in model.open():
        assert not whole(queue, said).over
    for said in model.over:
        assert whole(queue, said).over
        assert types(queue, said)[-2:] == ["message", "done"]
    busy = {said.user_id for said in model.open()}
    assert queue.counts() == Counts(len(busy), len(model.running))


class Crew:
    """Workers that answer until `expected` messages are answered, and note whom they answered in which order."""

    def __init__(self, queue: Queue, expected: int) -> None:
        self.answered: dict[str, list[str]] = defaultdict(list)
        self._queue = queue
        self._left = expected
        self._counting = threading.Lock()
        self._busy: set[str] = set()

    def work(self) -> None:
        end = monotonic() + DEADLINE
        while self._left and monotonic() < end:
            if claim := self._queue.claim(0.05):
                self._answer(claim)

    def _answer(self, claim: Claim) -> None:
        assert claim.message.user_id not in self._busy
        self._busy.add(claim.message.user_id)
        self._queue.append(claim, [("processing", "")])
        self._queue.append(claim, [("message", "a"), ("message", "b")])
        self._queue.renew(claim)
        self.answered[claim.message.user_id].append(claim.message.id)
        self._busy.remove(claim.message.user_id)
        self._queue.finish(claim, [("message", "c")])
        with self._counting:
            self._left -= 1


def followed(queue: Queue, said: Message) -> list[str]:
    """The answer, read as it is written."""
    heard, after, woken = [], "", threading.Event()
    with queue.subscribe(said.user_id, said.id, woken.set):
        while True:
            events, over, more = queue.read(said.user_id, said.id, after)
            heard += [event.data for event in events if event.event == "message"]
            after = events[-1].id if events else after
            if over:
                return heard
            if not more:
                assert woken.wait(DEADLINE)
                woken.clear()


@pytest.mark.usefixtures("many_switches")
def test_many_threads_keep_each_users_order(make):
    queue, users, each = make(depth_per_user=25), [f"user-{n}" for n in range(8)], 25
    crew = Crew(queue, len(users) * each)

    def speak_and_follow(user_id: str) -> list[Message]:
        said = [left(queue, user_id, text=str(number)) for number in range(each)]
        assert [followed(queue, one) for one in said] == [["a", "b", "c"]] * each
        return said

    with ThreadPoolExecutor(16) as threads:
        working = [threads.submit(crew.work) for _ in range(6)]
        speaking = {user_id: threads.submit(speak_and_follow, user_id) for user_id in users}
        for work in working:
            work.result(DEADLINE)

    assert crew.answered == {user_id: [said.id for said in speak.result()] for user_id, speak in speaking.items()}
    assert queue.counts() == Counts(0, 0)


# Groups.


def in_group(group: str, user_id: str = "ann", **more: Any) -> Message:
    return message(user_id, **more)._replace(id=new_id("org", user_id, group))


def test_groups_of_one_user_do_not_wait_for_each_other(queue):
    said = [in_group(group) for group in ("one", "two", "", "one")]
    for one in said:
        queue.enqueue(one, None, "enqueue")

    assert [claimed(queue).message.id for _ in range(3)] == [one.id for one in said[:3]]
    assert queue.claim(AT_ONCE) is None


def test_a_group_of_the_same_name_is_each_users_own(queue):
    anns, bobs = in_group("one", "ann"), in_group("one", "bob")
    for one in (anns, bobs):
        queue.enqueue(one, None, "reject")

    assert [place.message_id for place in queue.positions("ann", "one")] == [anns.id]
    assert [place.message_id for place in queue.positions("bob", "one")] == [bobs.id]
    assert queue.positions("ann") == queue.positions("ann", "two") == []


def test_depth_and_positions_are_the_groups(make):
    queue = make(depth_per_user=2)
    for group in ("one", "two"):
        assert [queue.enqueue(in_group(group), None, "enqueue").ahead for _ in range(2)] == [0, 1]
        with pytest.raises(TooManyRequests):
            queue.enqueue(in_group(group), None, "enqueue")

    assert [place.position for place in queue.positions("ann", "two")] == [1, 2]


def test_an_idempotency_key_is_the_groups(queue):
    one, two = in_group("one"), in_group("two")

    assert queue.enqueue(one, "key", "enqueue").message_id == one.id
    assert queue.enqueue(two, "key", "enqueue").message_id == two.id
    assert queue.enqueue(in_group("one"), "key", "enqueue").message_id == one.id


def test_interrupting_ends_what_runs_in_the_group_only(queue):
    told = stops(queue)
    one, two = in_group("one"), in_group("two")
    for each in (one, two):
        queue.enqueue(each, None, "enqueue")
        claimed(queue)

    queue.enqueue(in_group("two"), None, "interrupt")

    assert told.get(timeout=DEADLINE) == two.id
    assert told.empty()


@pytest.mark.parametrize("verb", ["read", "stop", "cancel_if_no_readers", "continue_without_readers"])
def test_a_message_in_a_group_is_its_users_only(queue, verb):
    said = in_group("one")
    queue.enqueue(said, None, "enqueue")
    more = ("",) if verb == "read" else ()

    for finish in (False, True):
        if finish:
            queue.finish(claimed(queue), [])
        with pytest.raises(NotFound):
            getattr(queue, verb)("bob", said.id, *more)
        getattr(queue, verb)("ann", said.id, *more)
        if not finish and verb in {"stop", "cancel_if_no_readers"}:
            return


# Runs: of one scope at most one message waits or runs.


def run(key: str, scope: str = "talk", **more: Any) -> Message:
    return in_group("group", **more)._replace(run_scope=scope, run_key=key)


@pytest.mark.parametrize("running", [False, True])
def test_who_asks_for_the_same_run_joins_it(queue, running):
    first = run("a", text="first")
    queue.enqueue(first, None, "enqueue")
    if running:
        claimed(queue)

    assert queue.enqueue(run("a", text="second"), None, "enqueue").message_id == first.id
    assert len(queue.positions("ann", "group")) == 1


@pytest.mark.parametrize("running", [False, True])
def test_another_run_of_the_scope_is_refused_and_another_scope_waits(queue, running):
    queue.enqueue(run("a"), None, "enqueue")
    if running:
        claimed(queue)

    with pytest.raises(Busy):
        queue.enqueue(run("b"), None, "enqueue")
    assert queue.enqueue(run("b", "other talk"), None, "enqueue").ahead == 1
    assert queue.enqueue(in_group("group"), None, "enqueue").ahead == 2


def test_a_run_that_is_over_is_begun_anew(queue):
    first, second = run("a"), run("a")
    queue.enqueue(first, None, "enqueue")
    queue.finish(claimed(queue), [])

    assert queue.enqueue(second, None, "enqueue").message_id == second.id
    queue.stop("ann", second.id)
    assert queue.enqueue(run("b"), None, "enqueue").ahead == 0


def test_of_many_who_ask_at_once_one_begins_the_run(queue, many_switches):
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(queue.enqueue, run("a"), None, "enqueue") for _ in range(16)]
        ids = {each.result(DEADLINE).message_id for each in asked}

    assert len(ids) == len(queue.positions("ann", "group")) == 1


@pytest.mark.parametrize("key", ["a", "b"])
def test_a_run_that_was_told_to_stop_is_neither_joined_nor_in_the_way(queue, key):
    first, again = run("a"), run(key)
    queue.enqueue(first, None, "enqueue")
    claim = claimed(queue)
    queue.stop("ann", first.id)

    assert queue.enqueue(again, None, "enqueue") == Receipt(again.id, 1)
    assert queue.positions("ann", "group") == [
        QueuePosition(first.id, "running", 0, "talk", "a", stopping=True),
        QueuePosition(again.id, "queued", 1, "talk", key),
    ]
    with pytest.raises(Busy):
        queue.enqueue(run("c"), None, "enqueue")
    queue.finish(claim, [("message", "stopped")])
    assert claimed(queue).message == again


def test_places_tell_their_runs_and_a_claim_its_handler(queue):
    said = run("a")._replace(handler="bundled")
    queue.enqueue(said, None, "enqueue")

    assert queue.positions("ann", "group") == [QueuePosition(said.id, "queued", 1, "talk", "a")]
    assert claimed(queue).message == said
    assert queue.positions("ann", "group") == [QueuePosition(said.id, "running", 0, "talk", "a")]


# Commits.


def test_what_is_committed_is_stopped_by_nobody(queue):
    told = stops(queue)
    said = left(queue, cancel_on_disconnect=True)
    claim = claimed(queue)

    assert queue.commit(claim)
    queue.stop("ann", said.id)
    queue.cancel_if_no_readers("ann", said.id)

    assert queue.renew(claim) is None
    assert queue.commit(claim)
    assert_told_nothing(queue, told)


def test_what_was_told_to_stop_is_not_committed(queue):
    said = left(queue)
    claim = claimed(queue)
    queue.stop("ann", said.id)

    assert not queue.commit(claim)
    assert queue.renew(claim) == "stopped"


def test_what_nobody_reads_is_not_committed(make, clock):
    queue = make(grace=5)
    left(queue, cancel_on_disconnect=True)
    claim = claimed(queue)
    clock.advance(6)
    queue.sweep()

    assert not queue.commit(claim)
    assert queue.renew(claim) == "unread"


def test_a_late_claim_commits_nothing(queue):
    left(queue)
    claim = claimed(queue)
    queue.finish(claim, [])

    with pytest.raises(LeaseLost):
        queue.commit(claim)


@pytest.mark.parametrize("started", [False, True])
def test_what_was_committed_is_handed_to_the_next_worker(queue, started):
    one = left(queue)
    claim = claimed(queue)
    queue.append(claim, [("message", "so far")], started=started)
    queue.commit(claim)

    queue.release(claim)
    queue.stop("ann", one.id)
    again = claimed(queue)

    assert (again.message.id, again.begun) == (one.id, started)
    assert queue.commit(again)
    queue.finish(again, [("message", "the end")])
    assert types(queue, one)[-2:] == ["message", "done"]


# Readers of what is for its readers only.


def test_the_last_reader_that_leaves_ends_it_at_once(queue):
    told: stdlib.Queue[Any] = stdlib.Queue()
    queue.on_stop(lambda *about: told.put(about))
    said = left(queue, cancel_on_disconnect=True)
    claim = claimed(queue)
    with ExitStack() as first:
        first.enter_context(queue.subscribe("ann", said.id, lambda: None))
        with queue.subscribe("ann", said.id, lambda: None):
            pass
        queue.cancel_if_no_readers("ann", said.id)
        assert queue.renew(claim) is None

    queue.cancel_if_no_readers("ann", said.id)

    assert queue.renew(claim) == "unread"
    assert told.get(timeout=DEADLINE) == (said.id, "unread")


def test_one_that_waits_is_taken_out_when_its_last_reader_leaves(queue):
    left(queue)
    said = left(queue, cancel_on_disconnect=True)

    queue.cancel_if_no_readers("ann", said.id)

    assert whole(queue, said).over
    assert len(queue.positions("ann")) == 1


@pytest.mark.parametrize("asked", [False, True])
def test_what_is_for_more_than_its_readers_is_not_ended(queue, asked):
    said = left(queue, cancel_on_disconnect=asked)
    claim = claimed(queue)
    if asked:
        queue.continue_without_readers("ann", said.id)

    queue.cancel_if_no_readers("ann", said.id)

    assert queue.renew(claim) is None


def test_a_stop_counts_more_than_nobodys_reading(queue):
    said = left(queue, cancel_on_disconnect=True)
    claim = claimed(queue)

    queue.stop("ann", said.id)
    queue.cancel_if_no_readers("ann", said.id)

    assert queue.renew(claim) == "stopped"


# Where an event is.


def test_an_event_is_located_in_its_groups_logs(queue):
    first, second, elsewhere = in_group("one"), in_group("one"), in_group("two")
    for said in (first, elsewhere):
        queue.enqueue(said, None, "enqueue")
        queue.finish(claimed(queue), [("message", "x")])
    queue.enqueue(second, None, "enqueue")
    queue.append(claimed(queue), [("message", "y")])

    for said in (first, second):
        for event in whole(queue, said).events:
            assert queue.locate("ann", "one", event.id) == said.id
            assert queue.locate("ann", "two", event.id) in {None, elsewhere.id}
            assert queue.locate("bob", "one", event.id) is None


@pytest.mark.parametrize("event_id", ["nonsense", "1-1", "99999999999999999999-0", "-", "5", "1-1-1", "é-1"])
def test_an_event_that_is_in_no_log_is_located_nowhere(queue, event_id):
    finished(queue)

    assert queue.locate("ann", "", event_id) is None


def test_a_message_of_a_group_that_is_free_is_claimed_as_it_is_enqueued(queue):
    said = message()

    receipt = queue.enqueue(said, None, "enqueue", claim=True)

    assert (receipt.message_id, receipt.ahead, receipt.claim.message, receipt.claim.token) == (said.id, 0, said, 1)
    assert queue.claim(AT_ONCE) is None
    assert [(place.state, place.position) for place in queue.positions("ann")] == [("running", 0)]
    assert positions(queue, said) == [1]
    queue.finish(receipt.claim, [])
    assert types(queue, said) == ["queued", "done"]


@pytest.mark.parametrize("running", [True, False], ids=["running", "waiting"])
def test_a_message_that_has_to_wait_is_not_claimed_as_it_is_enqueued(queue, running):
    before = left(queue)
    first = claimed(queue) if running else None

    receipt = queue.enqueue(message(), None, "enqueue", claim=True)

    assert (receipt.claim, receipt.ahead) == (None, 1)
    first = first or claimed(queue)
    assert first.message.id == before.id
    queue.finish(first, [])
    assert claimed(queue).message.id == receipt.message_id


def test_the_next_message_of_a_group_is_claimed_for_its_handler(queue):
    first = queue.enqueue(message(handler="external"), None, "enqueue", claim=True).claim
    said = left(queue, handler="external")
    left(queue, "bob", handler="external")
    assert queue.claim_next(first.message, "external") is None, "the first one runs"
    queue.finish(first, [])

    claim = queue.claim_next(first.message, "external")

    assert (claim.message.id, claim.token) == (said.id, 1)
    assert claimed(queue).message.user_id == "bob"
    assert queue.claim(AT_ONCE) is None, "it is offered to nobody else"
    queue.finish(claim, [])
    assert queue.claim_next(first.message, "external") is None
    assert types(queue, said) == ["queued", "done"]


def test_the_next_message_of_a_group_is_left_to_others_where_its_handler_is_another(queue):
    first = queue.enqueue(message(handler="external"), None, "enqueue", claim=True).claim
    said = left(queue, handler="bundled")
    queue.finish(first, [])

    assert queue.claim_next(first.message, "external") is None
    assert claimed(queue).message.id == said.id


def test_the_same_message_again_is_not_claimed_a_second_time(queue):
    said = message()
    queue.enqueue(said, "once", "enqueue", claim=True)

    again = queue.enqueue(message(), "once", "enqueue", claim=True)

    assert (again.message_id, again.claim) == (said.id, None)


def test_a_message_that_could_not_be_passed_on_frees_its_clients_id(queue):
    claim = queue.enqueue(message(), "once", "enqueue", claim=True).claim

    queue.finish(claim, [("message", "failed")], forget=True)
    again = message(text="other")

    assert queue.enqueue(again, "once", "enqueue").message_id == again.id
    assert types(queue, claim.message) == ["queued", "message", "done"]


def test_a_concluded_log_has_ended_and_its_group_is_occupied(queue):
    said = left(queue)
    claim = claimed(queue)

    queue.conclude(claim, [("message", "last")])
    after = left(queue)

    page = whole(queue, said)
    assert (page.over, [event.event for event in page.events]) == (True, ["queued", "message", "done"])
    assert queue.claim(AT_ONCE) is None
    assert [place.message_id for place in queue.positions("ann")] == [after.id]
    queue.finish(claim, [])
    assert claimed(queue).message.id == after.id
    assert types(queue, said) == ["queued", "message", "done"]


def test_a_concluded_message_can_be_renewed_and_neither_stopped_nor_written_to(queue):
    said = left(queue)
    claim = claimed(queue)
    told = stops(queue)
    queue.conclude(claim, [])

    queue.stop("ann", said.id)
    left(queue, on_busy="interrupt")

    assert queue.renew(claim) is None
    assert_told_nothing(queue, told)
    assert types(queue, said) == ["queued", "done"]


def test_a_concluded_message_is_busy_for_nobody(queue):
    left(queue)
    queue.conclude(claimed(queue), [])

    queue.enqueue(message(), None, "reject")


def test_a_concluded_message_that_is_handed_back_is_not_answered_again(queue):
    said = left(queue)
    claim = claimed(queue)
    queue.append(claim, [("message", "one")])
    queue.conclude(claim, [("message", "last")])

    queue.release(claim)

    assert queue.claim(AT_ONCE) is None
    assert types(queue, said) == ["queued", "message", "message", "done"]


def test_a_concluded_message_stays_claimed_when_its_log_is_gone(make, clock):
    queue = make(retention=60)
    said = left(queue)
    claim = claimed(queue)
    queue.conclude(claim, [])
    clock.advance(61)
    queue.sweep()
    with pytest.raises(Expired):
        whole(queue, said)
    left(queue)

    assert queue.claim(AT_ONCE) is None
    queue.finish(claim, [])
    assert claimed(queue)


def test_a_repeatable_answer_that_is_handed_back_begins_anew_three_times_at_most(queue):
    said = left(queue, repeatable=True)

    for number in range(3):
        claim = claimed(queue)
        assert claim.message.id == said.id
        queue.append(claim, [("message", f"try {number}")])
        queue.release(claim)
    last = claimed(queue)
    queue.append(last, [("message", "try 3")])
    queue.release(last)

    said_events = [event.data for event in whole(queue, said).events if event.event == "message"]
    assert said_events[:-1] == [
        text for number in range(4) for text in (f"try {number}", *(['{"type":"restart"}'] if number < 3 else []))
    ]
    assert json.loads(said_events[-1])["code"] == "interrupted"
    assert queue.claim(AT_ONCE) is None


def test_a_repeatable_answer_that_was_committed_and_not_stored_begins_anew_three_times_at_most(queue):
    said = left(queue, repeatable=True)

    for number in range(4):
        claim = claimed(queue)
        queue.append(claim, [("message", f"try {number}")])
        assert queue.commit(claim)
        queue.release(claim)
        again = claimed(queue)
        assert again.begun
        assert queue.restart(again) == (number < 3)
        if number < 3:
            queue.release(again)

    texts = [event.data for event in whole(queue, said).events if event.event == "message"]
    assert texts == [text for number in range(3) for text in (f"try {number}", '{"type":"restart"}')] + ["try 3"]


def test_a_committed_answer_that_begins_anew_may_be_stopped_until_it_is_committed_again(queue):
    said = left(queue, repeatable=True)
    claim = claimed(queue)
    queue.append(claim, [("message", "one")])
    queue.commit(claim)
    queue.release(claim)
    again = claimed(queue)
    queue.restart(again)

    queue.stop("ann", said.id)

    assert queue.renew(again) == "stopped"
    assert not queue.commit(again)


def test_an_answer_that_must_not_be_repeated_does_not_begin_anew_after_its_commit(queue):
    left(queue)
    claim = claimed(queue)
    queue.append(claim, [("message", "one")])
    queue.commit(claim)
    queue.release(claim)
    again = claimed(queue)

    assert not queue.restart(again)
    queue.finish(again, [])
    with pytest.raises(LeaseLost):
        queue.restart(again)


def test_a_repeatable_answer_that_has_said_nothing_is_handed_back_without_a_restart(queue):
    said = left(queue, repeatable=True)
    queue.release(claimed(queue))

    assert claimed(queue).message.id == said.id
    assert "message" not in types(queue, said)


def test_a_repeatable_answer_that_was_to_stop_is_stopped_and_not_begun_anew(queue):
    said = left(queue, repeatable=True)
    claim = claimed(queue)
    queue.append(claim, [("message", "one")])
    queue.stop("ann", said.id)

    queue.release(claim)

    assert queue.claim(AT_ONCE) is None
    assert "restart" not in "".join(event.data for event in whole(queue, said).events)


def test_ids_go_on_rising_over_a_restart_and_a_reader_goes_on_after_any_of_them(queue):
    said = left(queue, repeatable=True)
    claim = claimed(queue)
    queue.append(claim, [("message", "one")])
    queue.release(claim)
    again = claimed(queue)
    queue.append(again, [("message", "two")])
    queue.finish(again, [])

    events = whole(queue, said).events
    numbers = [tuple(map(int, event.id.split("-"))) for event in events]
    assert numbers == sorted(set(numbers))
    for at, event in enumerate(events):
        assert [*queue.read("ann", said.id, event.id).events] == [*events[at + 1 :]]
