"""The SQLite file of a journal: rows are appended, read in order and deleted from the front. All methods block.

A row holds the records of one commit as a JSON array. One statement per commit costs a third of one statement per record,
because SQLite releases the GIL at each statement and has to get it back from a busy event loop.

Two `flock` locks, which end with their process, control access. The holder of "owner" processes the file's messages and deletes
rows. The holder of "next" becomes the owner's successor: a process releases that lock when it starts to drain.
"""

import contextlib
import fcntl
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

Record = Sequence[Any]
"""A kind, then the fields of that kind: see `replay.py`."""

APPLICATION_ID: Final = 0x43686174
VERSION: Final = 1
ROW_BYTES: Final = 256 * 1024
"""Approximate size of a row: encoding one holds the GIL for less than a millisecond."""
READ_ROWS: Final = 64
BUSY_SECONDS: Final = 5.0
"""Maximum wait for another process's commit or checkpoint."""
WAL_BYTES: Final = 4 * 1024 * 1024
SPARE_PAGES: Final = 256
"""Free pages kept for the next rows: 1 MiB."""
MAX_SHRINK_PAGES: Final = 2048
"""Maximum number of pages freed at once, while commits wait."""

TABLES: Final = ("remembered", "log")


class Corrupt(Exception):
    """The file's content is damaged."""


class Foreign(Exception):
    """The file belongs to another program."""


class Row(NamedTuple):
    n: int
    writer: int
    size: int
    records: list[Record]


class JournalFile:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer = int.from_bytes(os.urandom(6), "big")
        """Identifies the rows of this process."""
        self._connection: sqlite3.Connection | None = None
        self._locks: dict[str, int] = {}

    # Locks.

    def acquire(self, name: str) -> bool:
        """Tries to take the lock "owner" or "next"; returns whether this process holds it. Raises OSError."""
        if name in self._locks:
            return True
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(f"{self.path}.{name}", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._locks[name] = descriptor
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return True

    def release(self, name: str) -> None:
        """Idempotent."""
        descriptor = self._locks.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)

    def owner(self) -> str:
        """The id of the process that holds the file, for a log line."""
        with contextlib.suppress(OSError):
            return Path(f"{self.path}.owner").read_text() or "unknown"
        return "unknown"

    # Requests of other processes: empty files in a folder, so that no lock is needed.

    def add_request(self, name: str) -> None:
        """Raises OSError."""
        self._requests.mkdir(mode=0o700, exist_ok=True)
        (self._requests / name).touch(0o600)

    def take_requests(self) -> list[str]:
        """Raises OSError."""
        try:
            names = [path.name for path in self._requests.iterdir()]
        except FileNotFoundError:
            return []
        for name in names:
            (self._requests / name).unlink(missing_ok=True)
        return names

    @property
    def _requests(self) -> Path:
        return self._with_suffix(".requests")

    # The file.

    def exists(self) -> bool:
        return self.path.exists() and self.path.stat().st_size > 0

    def open(self) -> None:
        """Raises Corrupt, Foreign, OSError, sqlite3.Error."""
        self.close()
        if not self.path.exists() or not self.path.stat().st_size:
            if self._with_suffix("-wal").exists() and self._with_suffix("-wal").stat().st_size:
                raise Corrupt("the file is empty, its write-ahead log is not")
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        self.path.chmod(0o600)
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        self._connection = connection
        with self._map_corruption():
            self._check(connection)
            for pragma in ("auto_vacuum = INCREMENTAL", "journal_mode = WAL", "synchronous = NORMAL", "wal_autocheckpoint = 0"):
                connection.execute(f"PRAGMA {pragma}").close()
            connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}").close()
            self._create(connection)

    def move_aside(self) -> Path:
        """Renames the file, to be inspected by hand. Returns its new path."""
        self.close()
        target = self.path.with_name(f"{self.path.name}.corrupt-{time.time_ns()}")
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                self._with_suffix(suffix).rename(f"{target}{suffix}")
        return target

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _with_suffix(self, suffix: str) -> Path:
        return Path(f"{self.path}{suffix}")

    def _check(self, connection: sqlite3.Connection) -> None:
        application, version, tables = (
            connection.execute(f"SELECT * FROM {source}").fetchone()[0]  # noqa: S608 - constants
            for source in ("pragma_application_id", "pragma_user_version", "(SELECT count(*) FROM sqlite_master)")
        )
        if tables and application != APPLICATION_ID:
            raise Foreign("it is another program's database")
        if tables and version != VERSION:
            raise Corrupt(f"its format has version {version}, this program writes version {VERSION}")
        if (result := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise Corrupt(result.splitlines()[-1])

    def _create(self, connection: sqlite3.Connection) -> None:
        with self._transaction(connection):
            for table in TABLES:
                connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {table} (n INTEGER PRIMARY KEY AUTOINCREMENT,"
                    " writer INTEGER NOT NULL, crc INTEGER NOT NULL, at REAL NOT NULL, data BLOB NOT NULL)"
                )
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")

    # Rows.

    def append(self, log: Sequence[Record], remembered: Sequence[Record], at: float) -> tuple[list[Row], list[Row]]:
        """Appends in one transaction; returns each table's new rows, without their records. Raises OSError, sqlite3.Error."""
        packed = [[*_pack(records)] for records in (log, remembered)]
        if len(packed[0]) + len(packed[1]) == 1:  # A single statement is a transaction of its own.
            return self._insert("log", packed[0], at), self._insert("remembered", packed[1], at)
        with self._transaction(self._connected()):
            return self._insert("log", packed[0], at), self._insert("remembered", packed[1], at)

    def _insert(self, table: str, packed: list[bytes], at: float) -> list[Row]:
        insert = f"INSERT INTO {table} (writer, crc, at, data) VALUES (?, ?, ?, ?)"  # noqa: S608 - a constant
        rows = []
        for data in packed:
            cursor = self._connected().execute(insert, (self.writer, zlib.crc32(data), at, data))
            rows.append(Row(cursor.lastrowid or 0, self.writer, len(data), []))
        return rows

    def read(self, table: str, after: int) -> list[Row]:
        """Returns the next rows written by other processes, in order. Raises Corrupt, sqlite3.Error."""
        select = (
            f"SELECT n, writer, crc, data FROM {table}"  # noqa: S608 - a constant
            f" WHERE n > ? AND writer != ? ORDER BY n LIMIT {READ_ROWS}"
        )
        with self._map_corruption():
            return [_unpack(*row) for row in self._connected().execute(select, (after, self.writer)).fetchall()]

    def delete(self, table: str, rows: Sequence[int]) -> None:
        with self._transaction(self._connected()):
            self._connected().executemany(f"DELETE FROM {table} WHERE n = ?", [(n,) for n in rows])  # noqa: S608 - a constant

    def shrink(self) -> bool:
        """Returns free pages to the file system; returns whether there may be more."""
        free = self._connected().execute("PRAGMA freelist_count").fetchone()[0] - SPARE_PAGES
        if free < SPARE_PAGES:
            return False
        # Frees one page per result row; `fetchall` would stop early, as the rows have no columns.
        self._connected().executescript(f"PRAGMA incremental_vacuum({min(free, MAX_SHRINK_PAGES)})")
        return bool(free > MAX_SHRINK_PAGES)

    def checkpoint(self) -> None:
        """Makes everything committed so far survive a power cut."""
        connection = self._connected()
        large = self._with_suffix("-wal").exists() and self._with_suffix("-wal").stat().st_size > WAL_BYTES
        connection.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if large else 'PASSIVE'})").fetchall()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.OperationalError("the journal is not open")
        return self._connection

    @contextlib.contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # SQLite rolls back by itself if the disk is full.
                connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _map_corruption(self) -> Iterator[None]:
        """Raises Corrupt for a damaged file; sqlite3.DatabaseError also covers a full disk and locks."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
                raise Corrupt(str(error)) from error
            raise


def _pack(records: Sequence[Record]) -> Iterator[bytes]:
    """Encodes records as JSON arrays of about ROW_BYTES each; a single record may be larger."""
    start, size = 0, 0
    for end, record in enumerate(records, start=1):
        size += len(record[-1]) if isinstance(record[-1], str) else 0  # Only an event's data, the last field, is long.
        if size >= ROW_BYTES or end == len(records):
            yield _encode(records[start:end])
            start, size = end, 0


_dump: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _encode(records: Sequence[Record]) -> bytes:
    return _dump(records).encode("utf-8", "surrogatepass")  # A delta may hold half of a surrogate pair.


def _unpack(n: int, writer: int, crc: int, data: bytes) -> Row:
    if not isinstance(data, bytes) or zlib.crc32(data) != crc:
        raise Corrupt(f"row {n} does not have the checksum it was written with")
    return Row(n, writer, len(data), json.loads(data.decode("utf-8", "surrogatepass")))
