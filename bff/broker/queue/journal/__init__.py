"""Writes what the in-memory queue does into a file, and reads it back at the next start.

The queue hands over records under its lock, which costs a list's `append`; they are committed together, every 25 ms, or at
once where somebody waits for it. A real thread does so (bff/ops/hub): no event loop waits for a disk. Records are
committed in the order in which they were made, so that what a crash leaves is always the state of one moment.

A journal is owned by one process. While its owner drains, the process that comes next may already write into the file and
reads there what the owner does; it becomes the owner when the first one is gone. Any other process is refused.
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
from typing import Final, Literal, Protocol, TypeVar

from bff.broker.queue.journal.buffer import Batch, Buffer
from bff.broker.queue.journal.file import TABLES, Corrupt, Foreign, JournalFile, Record, Row
from bff.broker.queue.journal.rows import Rows
from bff.errors import ServerFull, StorageUnavailable
from bff.http.waiting import ThreadExecutor

COMMIT_SECONDS: Final = 0.025
"""For which records wait for others, where nobody waits for them."""
CHECKPOINT_SECONDS: Final = 1.0
"""Between two; also between two attempts to write after a failure."""
FOLLOW_SECONDS: Final = 0.05
"""Between two looks at what another process has written, or at whether it is gone."""
TAKEOVER_SECONDS: Final = 3.0
"""For which a start waits for the owner of the file to drain: a reload tells it a moment later."""

Role = Literal["owner", "next"] | None
T = TypeVar("T")

log = logging.getLogger(__name__)


class Replay(Protocol):
    """What becomes of the records that are read. Each is called with the queue's lock held."""

    def reset(self) -> None:
        """Nothing of what was applied counts."""

    def apply(self, record: Record, position: int) -> None:
        """Of another process, or of one before this."""

    def join(self) -> None:
        """Who wrote the records that were applied is still there, and drains."""

    def adopt(self) -> None:
        """Who wrote the records that were applied is gone: what they left is this process's."""

    def obey(self, record: Record) -> None:
        """What another process wants of a message of this one."""

    def rewrite(self) -> None:
        """Records all that there is."""


class Journal:
    def __init__(self, path: Path, file: JournalFile | None = None, takeover_seconds: float = TAKEOVER_SECONDS) -> None:
        self._file = file or JournalFile(path)
        self._takeover_seconds = takeover_seconds
        self._aside = ThreadExecutor()
        self._opening = threading.Lock()
        self.opened = False
        """Whether it was begun; `role` says whether the file could be had."""
        self.closing = self._draining = False
        self.role: Role = None
        self.failing = self._behind = False
        """Whether the last attempt to write failed, and whether there are records that it was for."""
        self._told = ""
        """Why there is no role."""
        self.buffer = Buffer()
        self.rows = Rows()
        self._seen = dict.fromkeys(TABLES, 0)
        """The last row of others that was read."""
        self._checkpoint_at = 0.0
        self._dirty = False

    def bind(self, lock: threading.Lock, replay: Replay, on_commit: Callable[[], None]) -> None:
        """`lock`: the queue's, which is held by whoever uses `buffer` and `rows`.

        `on_commit` is called without it, after each commit, and after one that failed.
        """
        self._lock = lock
        self._replay = replay
        self._on_commit = on_commit
        self.buffer.bind(lock)

    def check(self) -> None:
        """Raises Away where another process has the file, ServerFull where it takes no writes."""
        if self.role is None:
            raise StorageUnavailable(detail=self._told or "the queue's file is not open")
        if self.failing:
            raise ServerFull

    def open(self) -> None:
        """Reads what is there and begins to write; idempotent. Waits a moment for a predecessor that is about to drain."""
        with self._opening:
            if self.opened:
                return
            self.opened = True
            give_up_at = monotonic() + self._takeover_seconds
            self._advance()
            while self.role is None and not self._told and monotonic() < give_up_at:
                time.sleep(FOLLOW_SECONDS)
                self._advance()
            if self.role is None and not self._told:
                self._refuse(f"is in use by process {self._file.owner()}: each server needs a file of its own")
            self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
            self._thread.start()
            with self._lock:
                self.buffer.flush()  # What became of the answers that were running may be told.

    def drain(self) -> None:
        """From now on the next process may write into the file, too, and reads what this one does."""
        self._draining = True
        self._aside(partial(self._file.release, "next"))

    def close(self) -> None:
        """Commits what there is and leaves the file to the next process."""
        with self._opening:
            if not self.opened or self.closing:
                return
            with self._lock:
                self.buffer.flush()
                self.closing = self.buffer.gives_up = True
                self.role = None
                self._told = "the queue's file was handed over"
                self.buffer.wake()
            self._thread.join()
            self._aside(self._file.close)
            for lock in ("owner", "next"):
                self._aside(partial(self._file.release, lock))

    def _work(self) -> None:
        while not self.closing:
            try:
                self._turn()
            except Exception:
                log.exception("the queue's journal stumbled")
                time.sleep(CHECKPOINT_SECONDS)

    def _turn(self) -> None:
        idle = FOLLOW_SECONDS if self.role == "next" or self._draining else CHECKPOINT_SECONDS
        with self._lock:
            batch = self.buffer.take(idle, CHECKPOINT_SECONDS if self.failing else COMMIT_SECONDS, lambda: self.closing)
        if batch.records or batch.remembered:
            self._commit(batch)
        else:
            with self._lock:  # What has been read from others counts as committed.
                self.buffer.settle(batch.position)
        if self.closing:
            return
        if self.role == "owner":
            self._tidy()
        else:
            self._advance()
        if self.role == "next" or self._draining:
            with suppress(sqlite3.OperationalError):  # The other process is tidying the file up: the next turn reads it.
                self._follow()

    def _commit(self, batch: Batch) -> None:
        written = self._attempt(partial(self._file.append, batch.records, batch.remembered, time.time()))
        with self._lock:
            self._behind = written is None
            if written is None:
                self.buffer.put_back(batch)
            else:
                self._dirty = True
                self.rows.keep(written[0], batch.position)
                self.rows.keep_remembered(written[1], len(batch.remembered))
                self.buffer.settle(batch.position)
        self._on_commit()

    def _tidy(self) -> None:
        """Deletes what nobody needs, and sees to it that a power cut costs the last second only."""
        if monotonic() < self._checkpoint_at:
            return
        self._checkpoint_at = monotonic() + CHECKPOINT_SECONDS
        with self._lock:
            dead, forgotten = self.rows.take_dead(), self.rows.take_outdated()
        if not (dead or forgotten or self._dirty or self.failing):
            return
        more = self._attempt(partial(self._tidy_file, dead, forgotten), recovers=True)
        if more is None:
            with self._lock:
                self.rows.put_back(dead)
        else:
            self._dirty = more

    def _tidy_file(self, dead: list[int], forgotten: list[int]) -> bool:
        for table, rows in (("log", dead), ("remembered", forgotten)):
            if rows:
                self._file.delete(table, rows)
        more = self._file.shrink()
        self._file.checkpoint()
        return more

    # Who owns the file.

    def _advance(self) -> None:
        """Becomes the owner, or the next one, if it can."""
        try:
            if self._aside(partial(self._file.acquire, "owner")):
                self._aside(partial(self._file.acquire, "next"))
                self._own()
            elif self.role is None and self._aside(partial(self._file.acquire, "next")):
                self._load()
                with self._lock:
                    self._replay.join()
                    self.role = "next"
        except (OSError, sqlite3.Error, Foreign, Corrupt) as error:
            self._refuse(f"cannot be used ({error})")

    def _own(self) -> None:
        try:
            if self.role is None:
                self._load()
            else:
                self._follow()
        except Corrupt as error:
            self._begin_anew(error)
        with self._lock:
            self._replay.adopt()
            self.role = "owner"
        if self._told:
            self._told = ""
            log.info("QUEUE_FILE %s is in use by this process now", self._file.path)

    def _begin_anew(self, error: Corrupt) -> None:
        path, kept = self._file.path, self._aside(self._file.move_aside)
        log.error("QUEUE_FILE %s was damaged (%s): it is kept as %s, and a new one begins", path, error, kept)
        if self.role is None:
            self._load()
            return
        self._aside(self._file.open)
        with self._lock:
            self._clear_rows()
            self._replay.rewrite()

    def _load(self) -> None:
        with self._lock:
            self._replay.reset()
            self._clear_rows()
        self._aside(self._file.open)
        self._follow()

    def _clear_rows(self) -> None:
        self.rows = Rows()
        self._seen = dict.fromkeys(TABLES, 0)

    def _follow(self) -> None:
        """Reads what others have written since the last time."""
        for table in TABLES:
            while page := self._aside(partial(self._file.read, table, self._seen[table])):
                with self._lock:
                    for row in page:
                        self._take(table, row)

    def _take(self, table: str, row: Row) -> None:
        for record in row.records:
            if self.role == "owner":
                self._replay.obey(record)
                continue
            self.buffer.position += 1
            self._replay.apply(record, self.buffer.position)
        self._seen[table] = row.n
        if table == "remembered":
            self.rows.keep_remembered([row], len(row.records))
        elif self.role != "owner":
            self.rows.keep([row], self.buffer.position)

    # What goes wrong.

    def _attempt(self, do: Callable[[], T], *, recovers: bool = False) -> T | None:
        """None where the file cannot be written to."""
        try:
            result = self._aside(do)
        except (OSError, sqlite3.Error, Corrupt) as error:
            if not self.failing:
                log.error(  # noqa: TRY400
                    "QUEUE_FILE %s takes no writes (%s): new messages are refused, what runs goes on in memory",
                    self._file.path,
                    error,
                )
            self.failing = self.buffer.gives_up = True
            return None
        if recovers and self.failing and not self._behind:
            self.failing = self.buffer.gives_up = False
            log.info("QUEUE_FILE %s takes writes again", self._file.path)
        return result

    def _refuse(self, why: str) -> None:
        if not self._told:
            self._told = f"QUEUE_FILE {self._file.path} {why}"
            log.error("%s; until then this process answers 503", self._told)
