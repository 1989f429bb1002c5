"""Persists the in-memory queue in a file, and loads it at the next start.

The queue adds records under its lock, which costs one `list.append` each. They are committed in batches, every 25 ms, or at
once if a caller waits for it. Blocking calls run in a native thread (bff/http/waiting), so that no event loop waits for the
disk. Records are committed in the order in which they were added, so that a crash leaves a consistent state.

One process owns a journal. While the owner drains, its successor may already write into the file and follows the owner's
records; it becomes the owner once the first process is gone. Any other process is refused.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final, Literal, TypeVar

from bff.broker.queue.journal.buffer import Batch, Buffer
from bff.broker.queue.journal.file import TABLES, Corrupt, Foreign, JournalFile, Row
from bff.broker.queue.journal.protocol import Replay
from bff.broker.queue.journal.rows import Rows
from bff.errors import ServerFull, StorageUnavailable
from bff.http.waiting import ThreadExecutor

COMMIT_SECONDS: Final = 0.025
"""For how long records are gathered if no caller waits for them."""
CHECKPOINT_SECONDS: Final = 1.0
"""Between two checkpoints, and between two attempts to write after a failure."""
FOLLOW_SECONDS: Final = 0.05
"""Between two reads of another process's records, or attempts to become the owner."""
TAKEOVER_SECONDS: Final = 3.0
"""How long a start waits for the owner of the file to drain: at a reload it starts to drain a moment later."""

Role = Literal["owner", "next"] | None
T = TypeVar("T")

log = logging.getLogger(__name__)


class Journal:
    def __init__(self, path: Path, file: JournalFile | None = None, takeover_seconds: float = TAKEOVER_SECONDS) -> None:
        self._file = file or JournalFile(path)
        self._takeover_seconds = takeover_seconds
        self._run_blocking = ThreadExecutor()
        self._lifecycle_lock = threading.Lock()
        self.opened = False
        """Whether `open` was called; `role` says whether the file could be locked."""
        self.closing = self._draining = False
        self.role: Role = None
        self.failing = False
        """Whether the last write failed."""
        self._has_unwritten_batch = False
        self._refusal = ""
        """Why there is no role."""
        self.buffer = Buffer()
        self.rows = Rows()
        self._last_read = dict.fromkeys(TABLES, 0)
        """The last row of other processes that was read, by table."""
        self._checkpoint_at = 0.0
        self._needs_checkpoint = False

    def bind(self, lock: threading.Lock, replay: Replay, on_commit: Callable[[], None]) -> None:
        """`lock`: the queue's, which callers of `buffer` and `rows` hold.

        `on_commit` is called without it, after each commit, failed ones included.
        """
        self._lock = lock
        self._replay = replay
        self._on_commit = on_commit
        self.buffer.bind(lock)

    def check(self) -> None:
        """Raises StorageUnavailable if another process owns the file, ServerFull if the file takes no writes."""
        if self.role is None:
            raise StorageUnavailable(detail=self._refusal or "the queue's file is not open")
        if self.failing:
            raise ServerFull

    def open(self) -> None:
        """Loads the file and starts to write. Idempotent. Waits a moment for a predecessor that is about to drain."""
        with self._lifecycle_lock:
            if self.opened:
                return
            self.opened = True
            deadline = monotonic() + self._takeover_seconds
            self._try_acquire()
            while self.role is None and not self._refusal and monotonic() < deadline:
                time.sleep(FOLLOW_SECONDS)
                self._try_acquire()
            if self.role is None and not self._refusal:
                self._refuse(f"is in use by process {self._file.owner()}: each server needs a file of its own")
            self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
            self._thread.start()
            with self._lock:
                self.buffer.flush()  # Readers may now see what became of the messages that were running.

    def peek(self) -> None:
        """Loads the file, which another process may own, without opening it for use. Raises StorageUnavailable."""
        try:
            if self._run_blocking(self._file.exists):
                self._load()
        except (OSError, sqlite3.Error, Foreign, Corrupt) as error:
            raise StorageUnavailable(detail=f"QUEUE_FILE {self._file.path} cannot be read ({error})") from error

    def request_delivery(self, delivery_id: str) -> None:
        """Has the owner of the file, or the next one, send a webhook again. Raises StorageUnavailable."""
        try:
            self._run_blocking(partial(self._file.add_request, delivery_id))
        except OSError as error:
            raise StorageUnavailable(detail=f"QUEUE_FILE {self._file.path} takes no requests ({error})") from error

    def drain(self) -> None:
        """From now on the next process may write into the file too, and follows this one's records."""
        self._draining = True
        self._run_blocking(partial(self._file.release, "next"))

    def close(self) -> None:
        """Commits the remaining records and leaves the file to the next process."""
        with self._lifecycle_lock:
            if not self.opened or self.closing:
                return
            with self._lock:
                self.buffer.flush()
                self.closing = self.buffer.failing = True
                self.role = None
                self._refusal = "the queue's file was handed over"
                self.buffer.wake()
            self._thread.join()
            self._run_blocking(self._file.close)
            for lock in ("owner", "next"):
                self._run_blocking(partial(self._file.release, lock))

    def _run(self) -> None:
        while not self.closing:
            try:
                self._step()
            except Exception:
                log.exception("the queue's journal failed")
                time.sleep(CHECKPOINT_SECONDS)

    def _step(self) -> None:
        idle = FOLLOW_SECONDS if self.role == "next" or self._draining else CHECKPOINT_SECONDS
        gather_seconds = CHECKPOINT_SECONDS if self.failing else COMMIT_SECONDS
        with self._lock:
            batch = self.buffer.take(idle, gather_seconds, lambda: self.closing)
        if batch.records or batch.remembered:
            self._commit(batch)
        else:
            with self._lock:  # Records read from other processes count as committed.
                self.buffer.mark_committed(batch.position)
        if self.closing:
            return
        if self.role == "owner":
            self._checkpoint()
        else:
            self._try_acquire()
        if self.role == "next" or self._draining:
            with suppress(sqlite3.OperationalError):  # Locked by the other process's checkpoint: retried in the next step.
                self._follow()

    def _commit(self, batch: Batch) -> None:
        written = self._try_write(partial(self._file.append, batch.records, batch.remembered, time.time()))
        with self._lock:
            self._has_unwritten_batch = written is None
            if written is None:
                self.buffer.put_back(batch)
            else:
                self._needs_checkpoint = True
                self.rows.add(written[0], batch.position)
                self.rows.add_remembered(written[1], len(batch.remembered))
                self.buffer.mark_committed(batch.position)
        self._on_commit()

    def _checkpoint(self) -> None:
        """Once per second: deletes outdated rows and checkpoints, so that a power cut loses at most the last second."""
        if monotonic() < self._checkpoint_at:
            return
        self._checkpoint_at = monotonic() + CHECKPOINT_SECONDS
        self._apply_requests()
        with self._lock:
            outdated, remembered = self.rows.take_outdated(), self.rows.take_outdated_remembered()
        if not (outdated or remembered or self._needs_checkpoint or self.failing):
            return
        more = self._try_write(partial(self._checkpoint_file, outdated, remembered), recovers=True)
        if more is None:
            with self._lock:
                self.rows.put_back(outdated)
        else:
            self._needs_checkpoint = more

    def _apply_requests(self) -> None:
        """Those of commands, which other processes run."""
        try:
            requests = self._run_blocking(self._file.take_requests)
        except OSError as error:
            log.warning("QUEUE_FILE %s: requests cannot be read (%s)", self._file.path, error)
            return
        with self._lock:
            for delivery_id in requests:
                self._replay.apply_request(("deliver", delivery_id))

    def _checkpoint_file(self, outdated: list[int], remembered: list[int]) -> bool:
        for table, rows in (("log", outdated), ("remembered", remembered)):
            if rows:
                self._file.delete(table, rows)
        more = self._file.shrink()
        self._file.checkpoint()
        return more

    # Ownership of the file.

    def _try_acquire(self) -> None:
        """Becomes the owner, or else the next one, if the lock is free."""
        try:
            if self._run_blocking(partial(self._file.acquire, "owner")):
                self._run_blocking(partial(self._file.acquire, "next"))
                self._become_owner()
            elif self.role is None and self._run_blocking(partial(self._file.acquire, "next")):
                self._load()
                with self._lock:
                    self._replay.follow()
                    self.role = "next"
        except (OSError, sqlite3.Error, Foreign, Corrupt) as error:
            self._refuse(f"cannot be used ({error})")

    def _become_owner(self) -> None:
        try:
            if self.role is None:
                self._load()
            else:
                self._follow()
        except Corrupt as error:
            self._replace_file(error)
        with self._lock:
            self._replay.take_over()
            self.role = "owner"
        if self._refusal:
            self._refusal = ""
            log.info("QUEUE_FILE %s is in use by this process now", self._file.path)

    def _replace_file(self, error: Corrupt) -> None:
        path, backup = self._file.path, self._run_blocking(self._file.move_aside)
        log.error("QUEUE_FILE %s was damaged (%s): it is kept as %s, and a new one begins", path, error, backup)
        if self.role is None:
            self._load()
            return
        self._run_blocking(self._file.open)
        with self._lock:
            self._clear_rows()
            self._replay.rewrite()

    def _load(self) -> None:
        with self._lock:
            self._replay.reset()
            self._clear_rows()
        self._run_blocking(self._file.open)
        self._follow()

    def _clear_rows(self) -> None:
        self.rows = Rows()
        self._last_read = dict.fromkeys(TABLES, 0)

    def _follow(self) -> None:
        """Applies what other processes have written since the last call."""
        for table in TABLES:
            while page := self._run_blocking(partial(self._file.read, table, self._last_read[table])):
                with self._lock:
                    for row in page:
                        self._apply(table, row)

    def _apply(self, table: str, row: Row) -> None:
        for record in row.records:
            if self.role == "owner":
                self._replay.apply_request(record)
                continue
            self.buffer.position += 1
            self._replay.apply(record, self.buffer.position)
        self._last_read[table] = row.n
        if table == "remembered":
            self.rows.add_remembered([row], len(row.records))
        elif self.role != "owner":
            self.rows.add([row], self.buffer.position)

    # Failures.

    def _try_write(self, write: Callable[[], T], *, recovers: bool = False) -> T | None:
        """Returns None if the file cannot be written to. `recovers`: success ends a failure, unless a batch is unwritten."""
        try:
            result = self._run_blocking(write)
        except (OSError, sqlite3.Error, Corrupt) as error:
            if not self.failing:
                log.error(  # noqa: TRY400
                    "QUEUE_FILE %s takes no writes (%s): new messages are refused, what runs goes on in memory",
                    self._file.path,
                    error,
                )
            self.failing = self.buffer.failing = True
            return None
        if recovers and self.failing and not self._has_unwritten_batch:
            self.failing = self.buffer.failing = False
            log.info("QUEUE_FILE %s takes writes again", self._file.path)
        return result

    def _refuse(self, reason: str) -> None:
        if not self._refusal:
            self._refusal = f"QUEUE_FILE {self._file.path} {reason}"
            log.error("%s; until then this process answers 503", self._refusal)
