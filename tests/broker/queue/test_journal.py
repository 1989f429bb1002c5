"""The queue in memory with a journal: what a restart, a crash, a damaged file and a full disk leave of it."""

import json
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from bff.broker.queue.base import Claim, Limits, Message
from bff.broker.queue.journal import Journal
from bff.broker.queue.journal.file import JournalFile
from bff.broker.queue.log import parsed
from bff.broker.queue.memory import MemoryQueue
from bff.errors import Expired, IdempotencyConflict, NotFound, ServerFull, StorageUnavailable
from tests.broker.queue.queues import AT_ONCE, claimed, left, message, types, whole
from tests.live import DEADLINE, ROOT, eventually


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Processes:
    """Queues on one file, one after the other or at the same time, as processes have them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.running: list[MemoryQueue] = []

    def start(self, file: JournalFile | None = None, *, wait: float = 0.0, **limits: float) -> MemoryQueue:
        journal = Journal(self.path, file or JournalFile(self.path), takeover_seconds=wait)
        self.running.append(MemoryQueue(Limits(**limits), self.clock, journal))
        self.running[-1].open()
        return self.running[-1]

    def kill(self) -> None:
        """The last one: what it committed is copied, as it is at this moment, and it never writes again."""
        queue = self.running.pop()
        saved = self.path.with_name("saved")
        saved.mkdir()
        for name in (self.path.name, f"{self.path.name}-wal"):
            if (self.path.parent / name).exists():
                shutil.copy(self.path.parent / name, saved / name)
        queue.close()
        for name in (self.path.name, f"{self.path.name}-wal", f"{self.path.name}-shm"):
            (self.path.parent / name).unlink(missing_ok=True)
        for copy in saved.iterdir():
            copy.rename(self.path.parent / copy.name)
        saved.rmdir()

    def restart(self, **limits: float) -> MemoryQueue:
        self.kill()
        return self.start(**limits)

    def stop(self) -> None:
        for queue in self.running:
            queue.close()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path / "queue.db")
    yield made
    made.stop()


def code_of(queue: MemoryQueue, said: Message) -> str:
    """Of the event before the last."""
    content = json.loads(whole(queue, said).events[-2].data)
    return str(content.get("code", content["type"]))


# Each verb, and then a restart.


def test_what_waits_waits_again_in_order(processes):
    queue = processes.start()
    said = [left(queue, user, text=str(number)) for number, user in enumerate(["ann", "ann", "bob", "ann"])]

    queue = processes.restart()

    assert [place.message_id for place in queue.positions("ann")] == [said[0].id, said[1].id, said[3].id]
    for expected in (said[0], said[2], said[1], said[3]):
        claim = claimed(queue)
        assert claim.message == expected
        queue.finish(claim, [])


def test_a_message_is_what_it_was(processes):
    said = Message("m-1", "a/b", {"text": "Ἐν\0\ud800", "deep": [1, None, 0.5]}, 40, True, "00-x", "bundled", "scope", "key")
    processes.start().enqueue(said, "own", "enqueue")

    assert claimed(processes.restart()).message == said


def test_one_that_interrupts_is_still_the_next(processes):
    queue = processes.start()
    first, last = left(queue), left(queue)
    claim = claimed(queue)
    urgent = left(queue, on_busy="interrupt")

    queue = processes.restart()

    assert types(queue, first)[-2:] == ["message", "done"]
    assert code_of(queue, first) == "stopped"
    assert [place.message_id for place in queue.positions("ann")] == [urgent.id, last.id]
    assert claim.token == 1


def test_what_had_said_nothing_waits_again_first_of_its_group(processes):
    queue = processes.start()
    said = left(queue)
    after = left(queue)
    before = claimed(queue)
    queue.append(before, [("processing", "")], started=False)
    assert queue.commit(before)  # What is committed says so of what came before.

    queue = processes.restart()
    again = claimed(queue)

    assert (again.message.id, again.begun, again.token) == (said.id, False, before.token + 1)
    assert [place.message_id for place in queue.positions("ann")] == [said.id, after.id]


def test_a_claim_as_it_was_enqueued_waits_again(processes):
    queue = processes.start()
    said = message()
    queue.enqueue(said, None, "enqueue", claim=True)

    again = claimed(processes.restart())

    assert (again.message, again.token) == (said, 2)


def test_what_had_said_something_is_interrupted(processes):
    queue = processes.start()
    said = left(queue)
    after = left(queue)
    queue.append(claimed(queue), [("message", "well, ")])

    queue = processes.restart()

    assert types(queue, said)[-3:] == ["message", "message", "done"]
    assert code_of(queue, said) == "interrupted"
    assert claimed(queue).message.id == after.id


def test_what_was_committed_is_handed_to_the_next_worker(processes):
    queue = processes.start()
    said = left(queue)
    claim = claimed(queue)
    queue.append(claim, [("message", "so far")])
    assert queue.commit(claim)

    queue = processes.restart()
    queue.stop("ann", said.id)
    again = claimed(queue)

    assert (again.message.id, again.begun) == (said.id, True)
    queue.finish(again, [("message", "the end")])
    assert [event.data for event in whole(queue, said).events if event.event == "message"] == ["so far", "the end"]


def test_what_was_to_stop_is_stopped(processes):
    queue = processes.start()
    running, waiting = left(queue), left(queue, "bob")
    claimed(queue)
    queue.stop("ann", running.id)
    queue.stop("bob", waiting.id)

    queue = processes.restart()

    assert code_of(queue, running) == code_of(queue, waiting) == "stopped"
    assert queue.claim(AT_ONCE) is None


@pytest.mark.parametrize("verb", ["finish", "conclude"])
def test_an_ended_log_is_read_as_it_was(processes, verb):
    queue = processes.start()
    said, after = left(queue), left(queue)
    claim = claimed(queue)
    queue.append(claim, [("message", "a\nb\0 Ἐν"), ("message", "")])
    getattr(queue, verb)(claim, [("message", "end")])
    before = whole(queue, said)

    queue = processes.restart()

    assert whole(queue, said) == before
    assert before.over
    assert claimed(queue).message.id == after.id
    for event in before.events:
        assert queue.locate("ann", "", event.id) == said.id


def test_what_was_handed_back_waits(processes):
    queue = processes.start()
    said, after = left(queue), left(queue)
    queue.release(claimed(queue))

    queue = processes.restart()

    assert [place.message_id for place in queue.positions("ann")] == [said.id, after.id]


def test_what_is_to_be_answered_unread_stays_so(processes):
    queue = processes.start(grace=5)
    kept, unread = left(queue, "ann", cancel_on_disconnect=True), left(queue, "bob", cancel_on_disconnect=True)
    queue.continue_without_readers("ann", kept.id)

    queue = processes.restart(grace=5)
    queue.sweep()
    assert [len(queue.positions(user)) for user in ("ann", "bob")] == [1, 1], "readers have time to come back"
    processes.clock.now += 6
    queue.sweep()

    assert [len(queue.positions(user)) for user in ("ann", "bob")] == [1, 0]
    assert code_of(queue, unread) == "stopped"


def test_what_nobody_read_any_more_is_stopped(processes):
    queue = processes.start()
    said = left(queue, cancel_on_disconnect=True)

    queue.cancel_if_no_readers("ann", said.id)

    assert code_of(processes.restart(), said) == "stopped"


def test_a_clients_own_id_is_known_for_a_day(processes):
    queue = processes.start(retention=600)
    receipt = queue.enqueue(message(text="one"), "own", "enqueue")

    queue = processes.restart(retention=600)
    assert queue.enqueue(message(text="one"), "own", "enqueue") == receipt
    with pytest.raises(IdempotencyConflict):
        queue.enqueue(message(text="two"), "own", "enqueue")
    queue.finish(claimed(queue), [])
    processes.clock.now += 601
    queue.sweep()

    queue = processes.restart(retention=600)
    queue.sweep()
    with pytest.raises(Expired):
        queue.enqueue(message(text="one"), "own", "enqueue")
    processes.clock.now += 24 * 3600
    queue.sweep()
    assert queue.enqueue(message(text="two"), "own", "enqueue").message_id != receipt.message_id


def test_a_clients_own_id_that_was_freed_is_free(processes):
    queue = processes.start()
    claim = queue.enqueue(message(), "own", "enqueue", claim=True).claim
    queue.finish(claim, [], forget=True)
    other = message(text="other")

    assert processes.restart().enqueue(other, "own", "enqueue").message_id == other.id


def test_an_expired_id_stays_known(processes):
    queue = processes.start(retention=60)
    said = left(queue)
    queue.finish(claimed(queue), [])
    processes.clock.now += 61
    queue.sweep()
    left(queue, "bob")  # Whose receipt commits the rest.

    queue = processes.restart(retention=60)

    with pytest.raises(Expired):
        whole(queue, said)
    with pytest.raises(NotFound):
        queue.read("bob", said.id, "")


def test_a_finished_log_expires_as_if_nothing_had_been(processes):
    queue = processes.start(retention=60)
    said = left(queue)
    queue.finish(claimed(queue), [])
    processes.clock.now += 40

    queue = processes.restart(retention=60)
    queue.sweep()
    assert whole(queue, said).over
    processes.clock.now += 21
    queue.sweep()

    with pytest.raises(Expired):
        whole(queue, said)


@pytest.mark.parametrize("expired", [False, True])
def test_ids_go_up_over_a_restart_even_when_the_clock_goes_back(processes, expired):
    queue = processes.start(retention=0)
    said = left(queue)
    queue.finish(claimed(queue), [("message", "one")])
    last = parsed(whole(queue, said).events[-1].id)
    if expired:
        processes.clock.now += 1
        queue.sweep()
        left(queue, "bob")
        queue.stop("bob", queue.positions("bob")[0].message_id)
        processes.clock.now += 1
        queue.sweep()
    processes.clock.now -= 1000

    queue = processes.restart()
    again = left(queue)

    assert parsed(whole(queue, again).events[0].id) > last


def test_bounds_count_what_was_there_before(processes):
    queue = processes.start(waiting_bytes=100)
    left(queue, size=60)

    queue = processes.restart(waiting_bytes=100)

    with pytest.raises(ServerFull):
        queue.enqueue(message("bob", size=41), None, "enqueue")
    queue.finish(claimed(queue), [])
    left(queue, "bob", size=100)


def test_restarts_one_after_the_other_change_nothing(processes):
    queue = processes.start()
    waiting = [left(queue) for _ in range(3)]
    done = left(queue, "bob")
    claimed(queue)
    queue.finish(claimed(queue), [("message", "x")])
    before = whole(queue, done)

    for _ in range(4):
        queue = processes.restart()
        assert [place.message_id for place in queue.positions("ann")] == [one.id for one in waiting]
        assert whole(queue, done) == before


# What is told is in the file.


def test_a_last_event_is_read_once_it_is_in_the_file(processes, tmp_path):
    slow = SlowFile(processes.path)
    queue = processes.start(slow)
    said = left(queue)
    claim = claimed(queue)
    slow.hold()
    finishing = threading.Thread(target=queue.finish, args=(claim, [("message", "the end")]))
    finishing.start()
    assert slow.waiting.wait(DEADLINE)

    assert not whole(queue, said).over
    assert types(queue, said) == ["queued"]
    slow.go_on()
    finishing.join(DEADLINE)
    assert whole(queue, said).over


def test_words_of_an_answer_are_read_before_they_are_in_the_file(processes):
    slow = SlowFile(processes.path)
    queue = processes.start(slow)
    said = left(queue)
    claim = claimed(queue)
    queue.append(claim, [("message", "one")])
    slow.hold()

    queue.append(claim, [("message", "two")])

    assert types(queue, said) == ["queued", "message", "message"]
    slow.go_on()


class SlowFile(JournalFile):
    """A disk that takes its time: each commit waits until it may go on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._may_go_on = threading.Event()
        self._may_go_on.set()
        self.waiting = threading.Event()

    def hold(self) -> None:
        self._may_go_on.clear()

    def go_on(self) -> None:
        self._may_go_on.set()

    def append(self, *rows: Any) -> Any:
        if not self._may_go_on.is_set():
            self.waiting.set()
        assert self._may_go_on.wait(DEADLINE)
        return super().append(*rows)


# The file.


def test_the_file_is_its_owners_only(processes):
    left(processes.start())

    for path in processes.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_file_that_others_could_read_is_closed_to_them(processes):
    processes.start()
    processes.stop()
    processes.path.chmod(0o644)

    processes.start()

    assert stat.S_IMODE(processes.path.stat().st_mode) == 0o600


def test_a_damaged_file_is_moved_aside_and_said_so_once(processes, caplog):
    left(processes.start())
    processes.stop()
    content = processes.path.read_bytes()
    processes.path.write_bytes(b"nonsense" + content)

    queue = processes.start()

    assert queue.positions("ann") == []
    left(queue)
    [kept] = processes.path.parent.glob("queue.db.corrupt-*[0-9]")
    assert kept.read_bytes() == b"nonsense" + content
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"QUEUE_FILE {processes.path} was damaged")
    assert kept.name in line


def test_another_programs_database_is_left_alone(processes, caplog):
    with closing(sqlite3.connect(processes.path)) as connection:
        connection.execute("CREATE TABLE precious (x)")
    before = processes.path.read_bytes()

    queue = processes.start()

    with pytest.raises(StorageUnavailable):
        left(queue)
    assert processes.path.read_bytes() == before
    assert "another program's" in caplog.text


def test_a_folder_that_cannot_be_written_to_is_said(processes, caplog):
    processes.path = Path("/proc/none/queue.db")

    queue = processes.start()

    with pytest.raises(StorageUnavailable):
        queue.positions("ann")
    assert len(caplog.records) == 1
    assert "/proc/none" in caplog.text


@pytest.mark.parametrize("cut", ["queue.db", "queue.db-wal"])
@pytest.mark.parametrize("seed", range(4))
def test_a_file_that_was_cut_is_read_as_it_once_was_or_moved_aside(processes, tmp_path, cut, seed):
    """As after a power failure, at 200 places: whatever is read is a state that there was."""
    queue = processes.start()
    said = [answered(queue, number) for number in range(6)]
    file = JournalFile(processes.path)
    file.open()
    file.checkpoint()
    file.close()
    told = len(said)
    said += [answered(queue, number) for number in range(6, 12)]
    histories = {one.id: list(whole(queue, one).events) for one in said}
    processes.kill()
    contents = {name: (tmp_path / name).read_bytes() for name in ("queue.db", "queue.db-wal")}
    chance = random.Random(seed)

    outcomes = set()
    for _ in range(25):
        folder = tmp_path / "cut"
        folder.mkdir()
        for name, content in contents.items():
            end = chance.randrange(len(content)) if name == cut else None
            (folder / name).write_bytes(content[:end])
        outcomes.add(read_back(folder / "queue.db", histories, told))
        shutil.rmtree(folder)

    assert ("moved aside" if cut == "queue.db" else "read") in outcomes


def answered(queue: MemoryQueue, number: int) -> Message:
    said = left(queue, f"user-{number}", text="word " * 300)
    claim = claimed(queue)
    for part in range(20):
        queue.append(claim, [("message", f"{number} {part} " + "word " * 50)])
    queue.finish(claim, [("message", "end")])
    return said


def read_back(path: Path, histories: dict[str, list[Any]], told: int) -> str:
    """`told`: so many of the first messages were in the file at the last checkpoint."""
    processes = Processes(path)
    queue = processes.start()
    found = [message_id for number, message_id in enumerate(histories) if known(queue, f"user-{number}", message_id)]
    for message_id in found:
        [page] = [queue.read(f"user-{list(histories).index(message_id)}", message_id, "")]
        entries = [event.data for event in page.events if event.event == "message"]
        before = [event.data for event in histories[message_id] if event.event == "message"]
        cut_short = page.over and entries != before
        assert entries[: len(entries) - cut_short] == before[: len(entries) - cut_short]
        assert not cut_short or json.loads(entries[-1])["code"] == "interrupted"
    assert queue.counts().queues == sum(bool(queue.positions(f"user-{number}")) for number in range(len(histories))), (
        "nothing is invented"
    )
    processes.stop()
    if list(path.parent.glob("*.corrupt-*")):
        assert not found
        return "moved aside"
    assert found == list(histories)[: len(found)], "a state that there was"
    assert len(found) >= told, "what was there at the checkpoint"
    return "read"


def known(queue: MemoryQueue, user_id: str, message_id: str) -> bool:
    try:
        queue.read(user_id, message_id, "")
    except NotFound:
        return False
    return True


def test_a_file_shrinks_again(processes):
    queue = processes.start(retention=1)
    for _ in range(20):
        left(queue)
        queue.finish(claimed(queue), [("message", "x" * 500_000)])
    large = size_of(processes.path)
    assert large > 9_000_000
    processes.clock.now += 2

    def shrunk() -> bool:
        queue.sweep()
        return size_of(processes.path) < 3_000_000

    assert eventually(shrunk, DEADLINE)


def size_of(path: Path) -> int:
    return sum(Path(f"{path}{suffix}").stat().st_size for suffix in ("", "-wal"))


def test_a_message_that_waits_for_long_does_not_keep_the_others_rows(processes):
    queue = processes.start(retention=1)
    waiting = [left(queue, "waiting", text=str(number)) for number in range(2)]
    running = claimed(queue)
    queue.append(running, [("message", "so far")])
    before = list(whole(queue, waiting[0]).events)
    for _ in range(30):
        left(queue)
        claim = claimed(queue)
        queue.append(claim, [("message", "x" * 500_000)])
        queue.finish(claim, [])
        processes.clock.now += 2
        queue.sweep()

    def shrunk() -> bool:
        queue.sweep()
        return size_of(processes.path) < 7_000_000

    assert eventually(shrunk, DEADLINE)
    queue = processes.restart(retention=600)
    assert list(whole(queue, waiting[0]).events)[: len(before)] == before
    assert [place.message_id for place in queue.positions("waiting")] == [waiting[1].id]


# A full disk.


class SmallDisk(JournalFile):
    """One with so many pages for the file, and no more."""

    pages = 64

    def open(self) -> None:
        super().open()
        self.resize(self.pages)

    def resize(self, pages: int) -> None:
        self._open().execute(f"PRAGMA max_page_count = {pages}").fetchall()


def test_on_a_full_disk_new_messages_are_refused_and_what_runs_goes_on(processes, caplog):
    disk = SmallDisk(processes.path)
    queue = processes.start(disk)
    said = left(queue)
    claim = claimed(queue)
    queue.append(claim, [("message", "x" * 1_000_000)])
    assert eventually(lambda: "takes no writes" in caplog.text)

    with pytest.raises(ServerFull):
        left(queue, "bob")
    with pytest.raises(ServerFull):
        queue.check_writes()
    queue.append(claim, [("message", "more")])
    queue.finish(claim, [("message", "end")])

    assert types(queue, said) == ["queued", "message", "message", "message", "done"]
    assert whole(queue, said).over
    assert queue.positions("bob") == []
    disk.resize(10_000)
    assert eventually(lambda: not fails(queue), DEADLINE)
    left(queue, "bob")
    before = whole(queue, said)
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    queue = processes.restart()
    assert whole(queue, said) == before
    assert len(queue.positions("bob")) == 1


def test_a_message_that_finds_the_disk_full_is_not_there(processes):
    disk = SmallDisk(processes.path)
    queue = processes.start(disk)

    with pytest.raises(ServerFull):
        queue.enqueue(message(text="x" * 1_000_000), "own", "enqueue")

    assert queue.positions("ann") == []
    disk.resize(10_000)
    assert eventually(lambda: not fails(queue), DEADLINE)
    other = message(text="other")
    assert queue.enqueue(other, "own", "enqueue").message_id == other.id
    queue = processes.restart()
    assert [place.message_id for place in queue.positions("ann")] == [other.id]


def fails(queue: MemoryQueue) -> bool:
    try:
        queue.check_writes()
    except ServerFull:
        return True
    return False


# Two processes.


def test_a_second_owner_is_refused_in_one_sentence_until_the_first_is_gone(processes, caplog):
    first = processes.start()
    said = left(first)

    second = processes.start()

    for ask in (lambda: left(second), lambda: whole(second, said), lambda: second.stop("ann", said.id)):
        with pytest.raises(StorageUnavailable) as refused:
            ask()
        assert refused.value.status == 503
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line.startswith(f"QUEUE_FILE {processes.path} is in use by process {os.getpid()}")
    first.close()
    assert eventually(lambda: there(second, said), DEADLINE)
    assert claimed(second).message == said


def there(queue: MemoryQueue, said: Message) -> bool:
    try:
        return known(queue, said.user_id, said.id)
    except StorageUnavailable:
        return False


@pytest.fixture
def reload(processes: Processes) -> Callable[[], tuple[MemoryQueue, MemoryQueue]]:
    def begin() -> tuple[MemoryQueue, MemoryQueue]:
        """The process that drains, and the one that comes next."""
        old = processes.running[-1]
        old.drain()
        return old, processes.start(wait=DEADLINE)

    return begin


def test_the_next_process_follows_the_logs_of_the_old_one(processes, reload):
    queue = processes.start()
    said = left(queue)
    claim = claimed(queue)
    queue.append(claim, [("message", "one")])
    old, new = reload()
    woken = threading.Event()

    with new.subscribe("ann", said.id, woken.set):
        old.append(claim, [("message", "two")])
        assert woken.wait(DEADLINE)
        old.finish(claim, [("message", "three")])
        assert eventually(lambda: whole(new, said).over, DEADLINE)

    assert whole(new, said) == whole(old, said)


def test_the_next_process_claims_nothing_of_a_group_that_the_old_one_runs(processes, reload):
    queue = processes.start()
    said = left(queue)
    claim = claimed(queue)
    old, new = reload()
    anns, bobs = left(new, "ann"), left(new, "bob")

    assert claimed(new).message == bobs
    assert new.claim(AT_ONCE) is None
    assert [place.message_id for place in new.positions("ann")] == [said.id, anns.id]
    old.finish(claim, [])

    assert claimed(new).message == anns


def test_what_the_old_process_leaves_is_the_next_ones(processes, reload):
    queue = processes.start()
    running, waiting = left(queue), left(queue)
    claim = claimed(queue)
    old, new = reload()
    last = left(new)
    assert new.claim(AT_ONCE) is None

    old.release(claim)
    old.close()

    for expected in (running, waiting, last):
        claim = claimed(new)
        assert claim.message.id == expected.id
        new.finish(claim, [])


def test_what_the_next_process_was_given_outlives_it(processes, reload):
    processes.start()
    old, new = reload()
    said = left(new)
    new.close()
    old.close()

    assert claimed(processes.start()).message == said


@pytest.mark.parametrize("running", [True, False])
def test_the_next_process_stops_what_is_the_old_ones(processes, reload, running):
    queue = processes.start()
    told: list[str] = []
    queue.on_stop(lambda message_id, _: told.append(message_id))
    said = left(queue)
    claim = claimed(queue) if running else None
    old, new = reload()

    new.stop("ann", said.id)

    if claim:
        assert eventually(lambda: told == [said.id], DEADLINE)
        assert old.renew(claim) == "stopped"
        old.finish(claim, [("message", "stopped")])
    assert eventually(lambda: whole(new, said).over, DEADLINE)
    assert whole(old, said) == whole(new, said)


def test_what_was_to_stop_when_the_old_process_died_is_stopped(processes, reload):
    queue = processes.start()
    said = left(queue)
    old, new = reload()
    old._journal._follow = lambda: None  # It hears of nothing any more.
    new.stop("ann", said.id)

    old.close()

    assert eventually(lambda: whole(new, said).over, DEADLINE)
    assert code_of(new, said) == "stopped"


def test_a_clients_own_id_of_the_old_process_is_known_to_the_next(processes, reload):
    receipt = processes.start().enqueue(message(), "own", "enqueue")
    _, new = reload()

    assert new.enqueue(message(), "own", "enqueue").message_id == receipt.message_id


def test_there_is_one_next_process(processes, reload):
    processes.start()
    reload()

    third = processes.start()

    with pytest.raises(StorageUnavailable):
        left(third)


def test_what_was_handed_over_is_taken_by_nobody_else(processes):
    queue = processes.start()
    said = left(queue)
    queue.close()

    with pytest.raises(StorageUnavailable):
        left(queue)
    with pytest.raises(StorageUnavailable):
        queue.stop("ann", said.id)
    assert types(queue, said) == ["queued"], "its readers may read on"


# A real process that is killed.

WRITER = """
import sys, itertools
from pathlib import Path
from bff.broker.journal import Journal
from bff.broker.memory import MemoryQueue
from bff.broker.queue import Message
queue = MemoryQueue(journal=Journal(Path(sys.argv[1])))
queue.open()
for number in itertools.count():
    name = f"{sys.argv[2]}-{number}"
    queue.enqueue(Message(name, "ann", {"message": name}), name, "enqueue")
    print("left", name, flush=True)
    claim = queue.claim(5)
    for part in range(5):
        queue.append(claim, [("message", f"{claim.message.id} {part}")])
        print("said", claim.message.id, flush=True)
    queue.finish(claim, [("message", "end")])
    print("finished", claim.message.id, flush=True)
"""


def test_a_process_that_is_killed_loses_nothing_that_it_told(tmp_path):
    chance = random.Random(7)
    told: dict[str, str] = {}
    for turn in range(4):
        told |= killed_writer(tmp_path / "queue.db", f"turn{turn}", chance.uniform(0.05, 0.3))
        processes = Processes(tmp_path / "queue.db")
        queue = processes.start()
        for name, state in told.items():
            check_told(queue, name, state)
        processes.stop()

    assert "finished" in told.values()


def killed_writer(path: Path, name: str, seconds: float) -> dict[str, str]:
    """What it had told of each message when it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name], stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ}
    )
    assert process.stdout
    first = process.stdout.readline()
    timer = threading.Timer(seconds, process.send_signal, [signal.SIGKILL])
    timer.start()
    lines = [line for line in (first + process.stdout.read()).decode().splitlines(keepends=True) if line.endswith("\n")]
    process.stdout.close()
    process.wait(DEADLINE)
    timer.join()
    return {line.split()[1]: line.split()[0] for line in lines}


def check_told(queue: MemoryQueue, name: str, state: str) -> None:
    page = queue.read("ann", name, "")
    entries = [event.data for event in page.events if event.event == "message"]
    if state == "finished":
        assert entries == [*(f"{name} {part}" for part in range(5)), "end"]
    elif state == "said":
        assert page.over
        assert entries[0] == f"{name} 0"
        assert entries[-1] == "end" or json.loads(entries[-1])["code"] == "interrupted"
    else:
        assert page.events


# Nobody waits for a disk.


def test_many_answers_go_on_while_the_disk_is_slow(processes):
    class Slow(JournalFile):
        def append(self, *rows: Any) -> Any:
            sleep(0.2)
            return super().append(*rows)

    queue = processes.start(Slow(processes.path))
    claims: list[Claim] = []
    for number in range(3):
        left(queue, str(number))
        claims.append(claimed(queue))
        queue.append(claims[-1], [("message", "first")])

    began = monotonic()
    for _ in range(100):
        for claim in claims:
            queue.append(claim, [("message", "more")])

    assert monotonic() - began < 0.2
