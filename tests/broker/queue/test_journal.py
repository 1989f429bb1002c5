"""The in-memory queue with a journal: restarts, crashes, damaged files, full disks and successive processes."""

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

from bff.broker.queue.base import MAX_CLAIMS, Claim, Limits, Message
from bff.broker.queue.deliveries import Delivery, webhook_of
from bff.broker.queue.journal import Journal
from bff.broker.queue.journal.file import JournalFile
from bff.broker.queue.log import parse_event_id
from bff.broker.queue.memory import MemoryQueue
from bff.errors import Expired, IdempotencyConflict, NotFound, ServerFull, StorageUnavailable
from tests.broker.queue.queues import NO_WAIT, claim_next, enqueue, event_types, new_message, read_log
from tests.live import DEADLINE, ROOT, eventually


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Processes:
    """Queues on one file, one after the other or at the same time, as in several processes."""

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
        """Simulates a crash of the last queue: restores the files as they were at this moment."""
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
    processes = Processes(tmp_path / "queue.db")
    yield processes
    processes.stop()


def code_of(queue: MemoryQueue, message: Message) -> str:
    """Returns the code, or else the type, of the last event before `done`."""
    content = json.loads(read_log(queue, message).events[-2].data)
    return str(content.get("code", content["type"]))


# A restart after each kind of change.


def test_waiting_messages_keep_their_order(processes):
    queue = processes.start()
    messages = [enqueue(queue, user, text=str(number)) for number, user in enumerate(["ann", "ann", "bob", "ann"])]

    queue = processes.restart()

    assert [position.message_id for position in queue.positions("ann")] == [messages[0].id, messages[1].id, messages[3].id]
    for expected in (messages[0], messages[2], messages[1], messages[3]):
        claim = claim_next(queue)
        assert claim.message == expected
        queue.finish(claim, [])


def test_a_message_is_restored_unchanged(processes):
    message = Message("m-1", "a/b", {"text": "Ἐν\0\ud800", "deep": [1, None, 0.5]}, 40, True, "00-x", "bundled", "scope", "key")
    processes.start().enqueue(message, "own", "enqueue")

    assert claim_next(processes.restart()).message == message


def test_an_interrupting_message_is_still_the_next(processes):
    queue = processes.start()
    first, last = enqueue(queue), enqueue(queue)
    claim = claim_next(queue)
    urgent = enqueue(queue, on_busy="interrupt")

    queue = processes.restart()

    assert event_types(queue, first)[-2:] == ["message", "done"]
    assert code_of(queue, first) == "stopped"
    assert [position.message_id for position in queue.positions("ann")] == [urgent.id, last.id]
    assert claim.token == 1


def test_a_running_message_without_output_is_queued_first_in_its_group(processes):
    queue = processes.start()
    message = enqueue(queue)
    after = enqueue(queue)
    before = claim_next(queue)
    queue.append(before, [("processing", "")], started=False)
    assert queue.commit(before)  # Waits until all earlier records are committed, too.

    queue = processes.restart()
    second_claim = claim_next(queue)

    assert (second_claim.message.id, second_claim.was_started, second_claim.token) == (message.id, False, before.token + 1)
    assert [position.message_id for position in queue.positions("ann")] == [message.id, after.id]


def test_a_message_claimed_as_it_was_enqueued_is_queued_again(processes):
    queue = processes.start()
    message = new_message()
    queue.enqueue(message, None, "enqueue", claim=True)

    second_claim = claim_next(processes.restart())

    assert (second_claim.message, second_claim.token) == (message, 2)


def test_a_message_that_kills_its_processes_is_interrupted(processes):
    queue = processes.start()
    message, after = enqueue(queue), enqueue(queue)
    claims = []
    for _ in range(MAX_CLAIMS):
        claims.append(claim_next(queue))
        enqueue(queue, "bob")  # Waits until the claim is committed, too.
        queue = processes.restart()

    assert [(claim.message.id, claim.token) for claim in claims] == [(message.id, token) for token in (1, 2, 3, 4, 5)]
    assert code_of(queue, message) == "interrupted"
    assert claim_next(queue).message == after


def test_a_running_message_with_output_is_interrupted(processes):
    queue = processes.start()
    message = enqueue(queue)
    after = enqueue(queue)
    queue.append(claim_next(queue), [("message", "output")])

    queue = processes.restart()

    assert event_types(queue, message)[-3:] == ["message", "message", "done"]
    assert code_of(queue, message) == "interrupted"
    assert claim_next(queue).message.id == after.id


def test_a_committed_message_goes_to_the_next_worker(processes):
    queue = processes.start()
    message = enqueue(queue)
    claim = claim_next(queue)
    queue.append(claim, [("message", "so far")])
    assert queue.commit(claim)

    queue = processes.restart()
    queue.stop("ann", message.id)
    second_claim = claim_next(queue)

    assert (second_claim.message.id, second_claim.was_started) == (message.id, True)
    queue.finish(second_claim, [("message", "the end")])
    assert [event.data for event in read_log(queue, message).events if event.event == "message"] == ["so far", "the end"]


def test_messages_that_were_to_stop_are_stopped(processes):
    queue = processes.start()
    running, waiting = enqueue(queue), enqueue(queue, "bob")
    claim_next(queue)
    queue.stop("ann", running.id)
    queue.stop("bob", waiting.id)

    queue = processes.restart()

    assert code_of(queue, running) == code_of(queue, waiting) == "stopped"
    assert queue.claim(NO_WAIT) is None


@pytest.mark.parametrize("verb", ["finish", "conclude"])
def test_an_ended_log_is_restored_unchanged(processes, verb):
    queue = processes.start()
    message, after = enqueue(queue), enqueue(queue)
    claim = claim_next(queue)
    queue.append(claim, [("message", "a\nb\0 Ἐν"), ("message", "")])
    getattr(queue, verb)(claim, [("message", "end")])
    before = read_log(queue, message)

    queue = processes.restart()

    assert read_log(queue, message) == before
    assert before.ended
    assert claim_next(queue).message.id == after.id
    for event in before.events:
        assert queue.locate("ann", "", event.id) == message.id


def test_a_released_message_is_queued(processes):
    queue = processes.start()
    message, after = enqueue(queue), enqueue(queue)
    queue.release(claim_next(queue))

    queue = processes.restart()

    assert [position.message_id for position in queue.positions("ann")] == [message.id, after.id]


def test_continuing_without_readers_is_restored(processes):
    queue = processes.start(grace=5)
    continued, unread = enqueue(queue, "ann", cancel_on_disconnect=True), enqueue(queue, "bob", cancel_on_disconnect=True)
    queue.continue_without_readers("ann", continued.id)

    queue = processes.restart(grace=5)
    queue.sweep()
    assert [len(queue.positions(user)) for user in ("ann", "bob")] == [1, 1], "readers have the grace period to reconnect"
    processes.clock.now += 6
    queue.sweep()

    assert [len(queue.positions(user)) for user in ("ann", "bob")] == [1, 0]
    assert code_of(queue, unread) == "stopped"


def test_a_cancellation_is_restored(processes):
    queue = processes.start()
    message = enqueue(queue, cancel_on_disconnect=True)

    queue.cancel_if_no_readers("ann", message.id)

    assert code_of(processes.restart(), message) == "stopped"


def test_a_client_message_id_is_known_for_a_day(processes):
    queue = processes.start(retention=600)
    receipt = queue.enqueue(new_message(text="one"), "own", "enqueue")

    queue = processes.restart(retention=600)
    assert queue.enqueue(new_message(text="one"), "own", "enqueue") == receipt
    with pytest.raises(IdempotencyConflict):
        queue.enqueue(new_message(text="two"), "own", "enqueue")
    queue.finish(claim_next(queue), [])
    processes.clock.now += 601
    queue.sweep()

    queue = processes.restart(retention=600)
    queue.sweep()
    with pytest.raises(Expired):
        queue.enqueue(new_message(text="one"), "own", "enqueue")
    processes.clock.now += 24 * 3600
    queue.sweep()
    assert queue.enqueue(new_message(text="two"), "own", "enqueue").message_id != receipt.message_id


def test_a_freed_client_message_id_may_be_reused(processes):
    queue = processes.start()
    claim = queue.enqueue(new_message(), "own", "enqueue", claim=True).claim
    queue.finish(claim, [], forget=True)
    other = new_message(text="other")

    assert processes.restart().enqueue(other, "own", "enqueue").message_id == other.id


def test_an_expired_message_stays_expired(processes):
    queue = processes.start(retention=60)
    message = enqueue(queue)
    queue.finish(claim_next(queue), [])
    processes.clock.now += 61
    queue.sweep()
    enqueue(queue, "bob")  # Enqueueing commits all earlier records.

    queue = processes.restart(retention=60)

    with pytest.raises(Expired):
        read_log(queue, message)
    with pytest.raises(NotFound):
        queue.read("bob", message.id, "")


def test_a_restart_does_not_extend_retention(processes):
    queue = processes.start(retention=60)
    message = enqueue(queue)
    queue.finish(claim_next(queue), [])
    processes.clock.now += 40

    queue = processes.restart(retention=60)
    queue.sweep()
    assert read_log(queue, message).ended
    processes.clock.now += 21
    queue.sweep()

    with pytest.raises(Expired):
        read_log(queue, message)


@pytest.mark.parametrize("expired", [False, True])
def test_event_ids_increase_over_a_restart_when_the_clock_goes_back(processes, expired):
    queue = processes.start(retention=0)
    message = enqueue(queue)
    queue.finish(claim_next(queue), [("message", "one")])
    last = parse_event_id(read_log(queue, message).events[-1].id)
    if expired:
        processes.clock.now += 1
        queue.sweep()
        enqueue(queue, "bob")
        queue.stop("bob", queue.positions("bob")[0].message_id)
        processes.clock.now += 1
        queue.sweep()
    processes.clock.now -= 1000

    queue = processes.restart()
    second_message = enqueue(queue)

    assert parse_event_id(read_log(queue, second_message).events[0].id) > last


def test_limits_count_restored_messages(processes):
    queue = processes.start(waiting_bytes=100)
    enqueue(queue, size=60)

    queue = processes.restart(waiting_bytes=100)

    with pytest.raises(ServerFull):
        queue.enqueue(new_message("bob", size=41), None, "enqueue")
    queue.finish(claim_next(queue), [])
    enqueue(queue, "bob", size=100)


def test_repeated_restarts_change_nothing(processes):
    queue = processes.start()
    waiting = [enqueue(queue) for _ in range(3)]
    done = enqueue(queue, "bob")
    claim_next(queue)
    queue.finish(claim_next(queue), [("message", "x")])
    before = read_log(queue, done)

    for _ in range(4):
        queue = processes.restart()
        assert [position.message_id for position in queue.positions("ann")] == [one.id for one in waiting]
        assert read_log(queue, done) == before


# Commits.


def test_final_events_are_visible_once_they_are_committed(processes, tmp_path):
    slow = SlowFile(processes.path)
    queue = processes.start(slow)
    message = enqueue(queue)
    claim = claim_next(queue)
    slow.block()
    finishing = threading.Thread(target=queue.finish, args=(claim, [("message", "the end")]))
    finishing.start()
    assert slow.is_blocked.wait(DEADLINE)

    assert not read_log(queue, message).ended
    assert event_types(queue, message) == ["queued"]
    slow.unblock()
    finishing.join(DEADLINE)
    assert read_log(queue, message).ended


def test_output_is_visible_before_it_is_committed(processes):
    slow = SlowFile(processes.path)
    queue = processes.start(slow)
    message = enqueue(queue)
    claim = claim_next(queue)
    queue.append(claim, [("message", "one")])
    slow.block()

    queue.append(claim, [("message", "two")])

    assert event_types(queue, message) == ["queued", "message", "message"]
    slow.unblock()


class SlowFile(JournalFile):
    """A file whose commits block between `block` and `unblock`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._unblocked = threading.Event()
        self._unblocked.set()
        self.is_blocked = threading.Event()

    def block(self) -> None:
        self._unblocked.clear()

    def unblock(self) -> None:
        self._unblocked.set()

    def append(self, *rows: Any) -> Any:
        if not self._unblocked.is_set():
            self.is_blocked.set()
        assert self._unblocked.wait(DEADLINE)
        return super().append(*rows)


# The file.


def test_the_files_are_readable_by_their_owner_only(processes):
    enqueue(processes.start())

    for path in processes.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_file_readable_by_others_is_restricted(processes):
    processes.start()
    processes.stop()
    processes.path.chmod(0o644)

    processes.start()

    assert stat.S_IMODE(processes.path.stat().st_mode) == 0o600


def test_a_damaged_file_is_moved_aside_and_logged_once(processes, caplog):
    enqueue(processes.start())
    processes.stop()
    content = processes.path.read_bytes()
    processes.path.write_bytes(b"nonsense" + content)

    queue = processes.start()

    assert queue.positions("ann") == []
    enqueue(queue)
    [backup] = processes.path.parent.glob("queue.db.corrupt-*[0-9]")
    assert backup.read_bytes() == b"nonsense" + content
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"QUEUE_FILE {processes.path} was damaged")
    assert backup.name in line


def test_another_programs_database_is_left_alone(processes, caplog):
    with closing(sqlite3.connect(processes.path)) as connection:
        connection.execute("CREATE TABLE precious (x)")
    before = processes.path.read_bytes()

    queue = processes.start()

    with pytest.raises(StorageUnavailable):
        enqueue(queue)
    assert processes.path.read_bytes() == before
    assert "another program's" in caplog.text


def test_a_folder_that_cannot_be_written_to_is_logged(processes, caplog):
    processes.path = Path("/proc/none/queue.db")

    queue = processes.start()

    with pytest.raises(StorageUnavailable):
        queue.positions("ann")
    assert len(caplog.records) == 1
    assert "/proc/none" in caplog.text


@pytest.mark.parametrize("cut", ["queue.db", "queue.db-wal"])
@pytest.mark.parametrize("seed", range(4))
def test_a_truncated_file_is_read_in_an_earlier_state_or_moved_aside(processes, tmp_path, cut, seed):
    """As after a power failure: whatever is read was the state at some moment."""
    queue = processes.start()
    messages = [enqueue_and_answer(queue, number) for number in range(6)]
    file = JournalFile(processes.path)
    file.open()
    file.checkpoint()
    file.close()
    checkpointed = len(messages)
    messages += [enqueue_and_answer(queue, number) for number in range(6, 12)]
    histories = {message.id: list(read_log(queue, message).events) for message in messages}
    processes.kill()
    contents = {name: (tmp_path / name).read_bytes() for name in ("queue.db", "queue.db-wal")}
    rng = random.Random(seed)

    outcomes = set()
    for _ in range(25):
        folder = tmp_path / "cut"
        folder.mkdir()
        for name, content in contents.items():
            end = rng.randrange(len(content)) if name == cut else None
            (folder / name).write_bytes(content[:end])
        outcomes.add(read_back(folder / "queue.db", histories, checkpointed))
        shutil.rmtree(folder)

    assert ("moved aside" if cut == "queue.db" else "read") in outcomes


def enqueue_and_answer(queue: MemoryQueue, number: int) -> Message:
    message = enqueue(queue, f"user-{number}", text="word " * 300)
    claim = claim_next(queue)
    for part in range(20):
        queue.append(claim, [("message", f"{number} {part} " + "word " * 50)])
    queue.finish(claim, [("message", "end")])
    return message


def read_back(path: Path, histories: dict[str, list[Any]], checkpointed: int) -> str:
    """Reads the file and checks its content. `checkpointed`: how many of the messages the last checkpoint covers."""
    processes = Processes(path)
    queue = processes.start()
    found = [message_id for number, message_id in enumerate(histories) if is_known(queue, f"user-{number}", message_id)]
    for message_id in found:
        [page] = [queue.read(f"user-{list(histories).index(message_id)}", message_id, "")]
        entries = [event.data for event in page.events if event.event == "message"]
        before = [event.data for event in histories[message_id] if event.event == "message"]
        cut_short = page.ended and entries != before
        assert entries[: len(entries) - cut_short] == before[: len(entries) - cut_short]
        assert not cut_short or json.loads(entries[-1])["code"] == "interrupted"
    assert queue.counts().queues == sum(bool(queue.positions(f"user-{number}")) for number in range(len(histories))), (
        "there are no other messages"
    )
    processes.stop()
    if list(path.parent.glob("*.corrupt-*")):
        assert not found
        return "moved aside"
    assert found == list(histories)[: len(found)], "messages are only missing at the end"
    assert len(found) >= checkpointed, "checkpointed messages are not lost"
    return "read"


def is_known(queue: MemoryQueue, user_id: str, message_id: str) -> bool:
    try:
        queue.read(user_id, message_id, "")
    except NotFound:
        return False
    return True


def test_a_file_shrinks_when_logs_expire(processes):
    queue = processes.start(retention=1)
    for _ in range(20):
        enqueue(queue)
        queue.finish(claim_next(queue), [("message", "x" * 500_000)])
    large = size_of(processes.path)
    assert large > 9_000_000
    processes.clock.now += 2

    def shrunk() -> bool:
        queue.sweep()
        return size_of(processes.path) < 3_000_000

    assert eventually(shrunk, DEADLINE)


def size_of(path: Path) -> int:
    return sum(Path(f"{path}{suffix}").stat().st_size for suffix in ("", "-wal"))


def test_a_long_waiting_message_does_not_keep_other_rows_in_the_file(processes):
    queue = processes.start(retention=1)
    waiting = [enqueue(queue, "waiting", text=str(number)) for number in range(2)]
    running = claim_next(queue)
    queue.append(running, [("message", "so far")])
    before = list(read_log(queue, waiting[0]).events)
    for _ in range(30):
        enqueue(queue)
        claim = claim_next(queue)
        queue.append(claim, [("message", "x" * 500_000)])
        queue.finish(claim, [])
        processes.clock.now += 2
        queue.sweep()

    def shrunk() -> bool:
        queue.sweep()
        return size_of(processes.path) < 7_000_000

    assert eventually(shrunk, DEADLINE)
    queue = processes.restart(retention=600)
    assert list(read_log(queue, waiting[0]).events)[: len(before)] == before
    assert [position.message_id for position in queue.positions("waiting")] == [waiting[1].id]


# A full disk.


class SmallDisk(JournalFile):
    """A file that is limited to `pages` pages."""

    pages = 64

    def open(self) -> None:
        super().open()
        self.resize(self.pages)

    def resize(self, pages: int) -> None:
        self._connected().execute(f"PRAGMA max_page_count = {pages}").fetchall()


def test_a_full_disk_refuses_new_messages_and_running_ones_continue(processes, caplog):
    disk = SmallDisk(processes.path)
    queue = processes.start(disk)
    message = enqueue(queue)
    claim = claim_next(queue)
    queue.append(claim, [("message", "x" * 1_000_000)])
    assert eventually(lambda: "takes no writes" in caplog.text)

    with pytest.raises(ServerFull):
        enqueue(queue, "bob")
    with pytest.raises(ServerFull):
        queue.check_writes()
    queue.append(claim, [("message", "more")])
    queue.finish(claim, [("message", "end")])

    assert event_types(queue, message) == ["queued", "message", "message", "message", "done"]
    assert read_log(queue, message).ended
    assert queue.positions("bob") == []
    disk.resize(10_000)
    assert eventually(lambda: not fails(queue), DEADLINE)
    enqueue(queue, "bob")
    before = read_log(queue, message)
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    queue = processes.restart()
    assert read_log(queue, message) == before
    assert len(queue.positions("bob")) == 1


def test_a_message_refused_by_a_full_disk_is_not_enqueued(processes):
    disk = SmallDisk(processes.path)
    queue = processes.start(disk)

    with pytest.raises(ServerFull):
        queue.enqueue(new_message(text="x" * 1_000_000), "own", "enqueue")

    assert queue.positions("ann") == []
    disk.resize(10_000)
    assert eventually(lambda: not fails(queue), DEADLINE)
    other = new_message(text="other")
    assert queue.enqueue(other, "own", "enqueue").message_id == other.id
    queue = processes.restart()
    assert [position.message_id for position in queue.positions("ann")] == [other.id]


def fails(queue: MemoryQueue) -> bool:
    try:
        queue.check_writes()
    except ServerFull:
        return True
    return False


# Two processes.


def test_a_second_owner_is_refused_until_the_first_is_gone(processes, caplog):
    first = processes.start()
    message = enqueue(first)

    second = processes.start()

    for call in (lambda: enqueue(second), lambda: read_log(second, message), lambda: second.stop("ann", message.id)):
        with pytest.raises(StorageUnavailable) as error:
            call()
        assert error.value.status == 503
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line.startswith(f"QUEUE_FILE {processes.path} is in use by process {os.getpid()}")
    first.close()
    assert eventually(lambda: is_readable(second, message), DEADLINE)
    assert claim_next(second).message == message


def is_readable(queue: MemoryQueue, message: Message) -> bool:
    try:
        return is_known(queue, message.user_id, message.id)
    except StorageUnavailable:
        return False


@pytest.fixture
def reload(processes: Processes) -> Callable[[], tuple[MemoryQueue, MemoryQueue]]:
    def start_next() -> tuple[MemoryQueue, MemoryQueue]:
        """Returns the draining process and the next one."""
        old = processes.running[-1]
        old.drain()
        return old, processes.start(wait=DEADLINE)

    return start_next


def test_the_next_process_follows_the_old_ones_logs(processes, reload):
    queue = processes.start()
    message = enqueue(queue)
    claim = claim_next(queue)
    queue.append(claim, [("message", "one")])
    old, new = reload()
    woken = threading.Event()

    with new.subscribe("ann", message.id, woken.set):
        old.append(claim, [("message", "two")])
        assert woken.wait(DEADLINE)
        old.finish(claim, [("message", "three")])
        assert eventually(lambda: read_log(new, message).ended, DEADLINE)

    assert read_log(new, message) == read_log(old, message)


def test_the_next_process_does_not_claim_from_the_old_ones_groups(processes, reload):
    queue = processes.start()
    message = enqueue(queue)
    claim = claim_next(queue)
    old, new = reload()
    anns, bobs = enqueue(new, "ann"), enqueue(new, "bob")

    assert claim_next(new).message == bobs
    assert new.claim(NO_WAIT) is None
    assert [position.message_id for position in new.positions("ann")] == [message.id, anns.id]
    old.finish(claim, [])

    assert claim_next(new).message == anns


def test_the_next_process_takes_over_the_old_ones_messages(processes, reload):
    queue = processes.start()
    running, waiting = enqueue(queue), enqueue(queue)
    claim = claim_next(queue)
    old, new = reload()
    last = enqueue(new)
    assert new.claim(NO_WAIT) is None

    old.release(claim)
    old.close()

    for expected in (running, waiting, last):
        claim = claim_next(new)
        assert claim.message.id == expected.id
        new.finish(claim, [])


def test_messages_of_the_next_process_are_restored(processes, reload):
    processes.start()
    old, new = reload()
    message = enqueue(new)
    new.close()
    old.close()

    assert claim_next(processes.start()).message == message


@pytest.mark.parametrize("running", [True, False])
def test_the_next_process_stops_the_old_ones_messages(processes, reload, running):
    queue = processes.start()
    stop_calls: list[str] = []
    queue.on_stop(lambda message_id, _: stop_calls.append(message_id))
    message = enqueue(queue)
    claim = claim_next(queue) if running else None
    old, new = reload()
    enqueue(new, "bob")  # The old process reads this, too.

    new.stop("ann", message.id)

    if claim:
        assert eventually(lambda: stop_calls == [message.id], DEADLINE)
        assert old.renew(claim) == "stopped"
        old.finish(claim, [("message", "stopped")])
    assert eventually(lambda: read_log(new, message).ended, DEADLINE)
    assert read_log(old, message) == read_log(new, message)


def test_a_stop_the_old_process_did_not_receive_is_applied(processes, reload):
    queue = processes.start()
    message = enqueue(queue)
    old, new = reload()
    old._journal._follow = lambda: None  # It no longer reads what the next process writes.
    new.stop("ann", message.id)

    old.close()

    assert eventually(lambda: read_log(new, message).ended, DEADLINE)
    assert code_of(new, message) == "stopped"


def test_the_next_process_knows_the_old_ones_client_message_ids(processes, reload):
    receipt = processes.start().enqueue(new_message(), "own", "enqueue")
    _, new = reload()

    assert new.enqueue(new_message(), "own", "enqueue").message_id == receipt.message_id


def test_there_is_one_next_process(processes, reload):
    processes.start()
    reload()

    third = processes.start()

    with pytest.raises(StorageUnavailable):
        enqueue(third)


def test_a_closed_queue_refuses_changes_and_can_be_read(processes):
    queue = processes.start()
    message = enqueue(queue)
    queue.close()

    with pytest.raises(StorageUnavailable):
        enqueue(queue)
    with pytest.raises(StorageUnavailable):
        queue.stop("ann", message.id)
    assert event_types(queue, message) == ["queued"], "its logs can be read"


# A process that is killed.

WRITER = """
import sys, itertools
from pathlib import Path
from bff.broker.queue.base import Message
from bff.broker.queue.journal import Journal
from bff.broker.queue.memory import MemoryQueue
queue = MemoryQueue(journal=Journal(Path(sys.argv[1])))
queue.open()
for number in itertools.count():
    name = f"{sys.argv[2]}-{number}"
    queue.enqueue(Message(name, "ann", {"message": name}), name, "enqueue")
    print("enqueued", name, flush=True)
    claim = queue.claim(5)
    for part in range(5):
        queue.append(claim, [("message", f"{claim.message.id} {part}")])
        print("appended", claim.message.id, flush=True)
    queue.finish(claim, [("message", "end")])
    print("finished", claim.message.id, flush=True)
"""


def test_a_killed_process_loses_nothing_it_acknowledged(tmp_path):
    rng = random.Random(7)
    acknowledged: dict[str, str] = {}
    for run in range(4):
        acknowledged |= killed_writer(tmp_path / "queue.db", f"run{run}", rng.uniform(0.05, 0.3))
        processes = Processes(tmp_path / "queue.db")
        queue = processes.start()
        for name, state in acknowledged.items():
            check_acknowledged(queue, name, state)
        processes.stop()

    assert "finished" in acknowledged.values()


def killed_writer(path: Path, name: str, seconds: float) -> dict[str, str]:
    """Returns the last state it acknowledged of each message before it was killed."""
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


def check_acknowledged(queue: MemoryQueue, name: str, state: str) -> None:
    page = queue.read("ann", name, "")
    entries = [event.data for event in page.events if event.event == "message"]
    if state == "finished":
        assert entries == [*(f"{name} {part}" for part in range(5)), "end"]
    elif state == "appended":
        assert page.ended
        assert entries[0] == f"{name} 0"
        assert entries[-1] == "end" or json.loads(entries[-1])["code"] == "interrupted"
    else:
        assert page.events


# Slow disks.


def test_appending_does_not_wait_for_a_slow_disk(processes):
    class SlowCommits(JournalFile):
        seconds = 0.0

        def append(self, *rows: Any) -> Any:
            sleep(self.seconds)
            return super().append(*rows)

    file = SlowCommits(processes.path)
    queue = processes.start(file)
    claims: list[Claim] = []
    for number in range(3):
        enqueue(queue, str(number))
        claims.append(claim_next(queue))
        queue.append(claims[-1], [("message", "first")])

    file.seconds = 1.0
    started_at = monotonic()
    for _ in range(100):
        for claim in claims:
            queue.append(claim, [("message", "more")])

    assert monotonic() - started_at < 1.0, "not even one commit"


# Webhook deliveries.


def end_with_webhook(queue: MemoryQueue, user_id: str = "ann") -> Message:
    message = enqueue(queue, user_id, webhook=webhook_of(["https://one.example/"], {"org_id": "home"}))
    queue.finish(claim_next(queue), [("message", '{"type":"complete"}')])
    return message


def claim_delivery(queue: MemoryQueue) -> Delivery:
    delivery = queue.deliveries.claim(DEADLINE)
    assert delivery is not None
    return delivery


def test_deliveries_survive_a_crash_in_every_state(processes):
    queue = processes.start()
    messages = [end_with_webhook(queue, user_id) for user_id in ("new", "claimed", "retried", "failed", "delivered")]
    for _ in range(5):
        delivery = claim_delivery(queue)
        if delivery.user_id == "retried":
            queue.deliveries.retry(delivery, 300, "the response was 500")
        elif delivery.user_id == "failed":
            queue.deliveries.fail(delivery, "no connection in time")
        elif delivery.user_id == "delivered":
            queue.deliveries.complete(delivery)
        elif delivery.user_id == "new":
            queue.deliveries.release(delivery, 0)
    before = queue.deliveries.entries()
    end_with_webhook(queue, "last")  # Its end is committed, and what came before it.

    queue = processes.restart()

    assert queue.deliveries.entries()[:4] == before
    claimed = [claim_delivery(queue) for _ in range(3)]
    assert sorted(delivery.user_id for delivery in claimed) == ["claimed", "last", "new"]
    assert queue.deliveries.claim(NO_WAIT) is None
    assert claimed[0].event == '{"type":"complete"}'
    assert claimed[0].message_id in {message.id for message in messages}


def test_the_end_of_an_interrupted_reply_is_delivered_after_a_crash(processes):
    queue = processes.start()
    message = enqueue(queue, webhook=webhook_of(["https://one.example/"], {"org_id": "home"}))
    queue.append(claim_next(queue), [("message", "begun")])

    queue = processes.restart()

    delivery = claim_delivery(queue)
    assert (delivery.message_id, json.loads(delivery.event)["code"]) == (message.id, "interrupted")


def test_the_next_process_sends_deliveries_once_the_first_one_is_gone(processes):
    first = processes.start()
    end_with_webhook(first, "ann")
    delivery = claim_delivery(first)
    end_with_webhook(first, "bob")
    with first.draining():
        second = processes.start(wait=DEADLINE)
        assert eventually(lambda: len(second.deliveries.entries()) == 2, DEADLINE)
        assert second.deliveries.claim(NO_WAIT) is None
        first.deliveries.complete(delivery)
        assert eventually(lambda: len(second.deliveries.entries()) == 1, DEADLINE)

    assert claim_delivery(second).user_id == "bob"


def test_compaction_keeps_old_deliveries(processes, monkeypatch):
    monkeypatch.setattr("bff.broker.queue.journal.recorder.COMPACT_BYTES", 0)
    queue = processes.start(retention=1)
    message = end_with_webhook(queue)
    queue.deliveries.retry(claim_delivery(queue), 3600, "the response was 500")
    for number in range(200):
        enqueue(queue, f"user-{number}", text="x" * 100)
        queue.finish(claim_next(queue), [("message", "x" * 1000)])
    for _ in range(3):
        processes.clock.now += 2
        queue.sweep()
    end_with_webhook(queue, "last")

    queue = processes.restart()

    assert queue.deliveries.entries()[0].message_id == message.id
    assert [entry.tries for entry in queue.deliveries.entries()] == [1, 0]


def test_deliveries_are_recorded_again_in_a_new_file(processes):
    """After the damage of a file that another process has written."""
    queue = processes.start()
    message = end_with_webhook(queue)
    with queue._lock:
        queue._replay.rewrite()
    end_with_webhook(queue, "last")

    queue = processes.restart()

    assert message.id in {entry.message_id for entry in queue.deliveries.entries()}
    assert len(queue.deliveries.entries()) == 2
