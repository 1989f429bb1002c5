"""Transactions on SQLite or PostgreSQL that do not block gevent's hub. SQLAlchemy's exceptions become UpstreamUnavailable.

psycopg cooperates with gevent. SQLite blocks in C: under gevent all transactions run in one native thread. A transaction that
finds the file locked does not wait there: its greenlet retries it, and other transactions can run meanwhile.
"""

import contextlib
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from queue import Empty
from time import monotonic
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection, Engine, Select, column, create_engine, event, make_url, select, table, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from bff.config.settings import Settings
from bff.db import migrations, privileges
from bff.db.migrations.version_table import VERSION_TABLE
from bff.db.problems import explain
from bff.errors import UpstreamUnavailable
from bff.http import waiting
from bff.http.waiting.fair_stack import FairStack

T = TypeVar("T")

POOL_SIZE: Final = 5
"""Connections per process; small database plans allow some 20. A stream holds none while it runs."""
POOL_TIMEOUT_SECONDS: Final = 10.0
LOCK_TIMEOUT_SECONDS: Final = 10.0
"""Maximum wait for SQLite's write lock, retries included."""
BUSY_TIMEOUT_SECONDS: Final = 0.05
"""Maximum wait for the lock inside SQLite, per attempt."""
STATEMENT_TIMEOUT_MILLISECONDS: Final = 15_000
MAX_CONNECTION_AGE_SECONDS: Final = 300
"""Connections are replaced at this age, as firewalls and poolers drop old ones."""

UNAVAILABLE: Final = "Conversations cannot be reached. Please try again in a moment."


def open_database(settings: Settings) -> "Database":
    """Development migrates the tables at the first use; in production `flask chat db upgrade` is a step of the deploy."""
    return Database(settings.database_url, migrate=settings.development)


class Database:
    """Connects at the first use. `migrate`: upgrades the tables then."""

    def __init__(self, url: str, *, migrate: bool = False) -> None:
        self._url = _with_driver(make_url(url))
        self._migrate = migrate
        self._open_lock = threading.Lock()
        self._engine: Engine | None = None
        self._thread = waiting.ThreadExecutor() if self._is_sqlite else None
        self._permits = FairStack(POOL_SIZE)
        """One for each connection: SQLAlchemy's pool lets busy callers overtake those who wait."""
        for number in range(POOL_SIZE):
            self._permits.put_nowait(number)

    @property
    def _is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    def read(self, work: Callable[[Session], T]) -> T:
        """`work` may run more than once. Raises UpstreamUnavailable, and what `work` raises."""
        return self._run(partial(self._transaction, work, writes=False))

    def write(self, work: Callable[[Session], T]) -> T:
        """Like `read`, and commits when `work` returns. Rolls back when it raises."""
        return self._run(partial(self._transaction, work, writes=True))

    def check_writes(self) -> None:
        """Commits a write that changes nothing. Raises UpstreamUnavailable while the database is read-only or full."""
        self.write(_write_to_sqlite if self._is_sqlite else _write_to_postgresql)

    def upgrade(self, revision: str = migrations.HEAD) -> str:
        """Returns the revision after the upgrade. Raises UpstreamUnavailable, a MigrationError."""
        return self._run_migration(partial(migrations.upgrade, revision=revision))

    def downgrade(self, revision: str) -> str:
        """Returns the revision after the downgrade. Raises UpstreamUnavailable, a MigrationError."""
        return self._run_migration(partial(migrations.downgrade, revision=revision))

    def current(self) -> str:
        """Returns the revision; "" if the database has no tables yet."""
        return self._run_migration(lambda _: None)

    def close(self) -> None:
        """Closes the connections. The next use opens new ones."""
        engine, self._engine = self._engine, None
        if engine is not None:
            self._run(engine.dispose)

    def _run_migration(self, change: Callable[[Connection], None]) -> str:
        def work() -> str:
            with self._get_engine().execution_options(writes=True).begin() as connection:
                change(connection)
                return migrations.current(connection)

        return self._run(work)

    def _run(self, call: Callable[[], T]) -> T:
        """Retries `call` while SQLite's write lock is held by another transaction."""
        deadline = monotonic() + LOCK_TIMEOUT_SECONDS
        while True:
            try:
                return self._thread(call) if self._thread is not None else call()
            except (SQLAlchemyError, sqlite3.Error) as error:
                cause = error.orig if isinstance(error, DBAPIError) else error
                if not _is_locked(cause) or monotonic() >= deadline:
                    raise UpstreamUnavailable(UNAVAILABLE, detail=explain(cause or error)) from error
            time.sleep(random.uniform(0.01, 0.05))  # noqa: S311 - jitter

    def _transaction(self, work: Callable[[Session], T], *, writes: bool) -> T:
        engine = self._migrated_engine().execution_options(writes=writes)
        with self._permit(), Session(engine, expire_on_commit=False) as session, session.begin():
            return work(session)

    @contextlib.contextmanager
    def _permit(self) -> Iterator[None]:
        try:
            permit = self._permits.get(timeout=POOL_TIMEOUT_SECONDS)
        except Empty as error:
            detail = f"no connection to the database was free for {POOL_TIMEOUT_SECONDS:g} s"
            raise UpstreamUnavailable(UNAVAILABLE, detail=detail) from error
        try:
            yield
        finally:
            self._permits.put_nowait(permit)

    def _migrated_engine(self) -> Engine:
        with self._open_lock:
            engine = self._get_engine()
            if self._migrate:
                self._migrate_at_first_use(engine)
                self._migrate = False
            return engine

    def _migrate_at_first_use(self, engine: Engine) -> None:
        """Raises UpstreamUnavailable if the database has tables of another program, or of a newer release."""
        try:
            with engine.execution_options(writes=True).begin() as connection:
                migrations.upgrade(connection)
        except migrations.MigrationError as error:
            raise UpstreamUnavailable(UNAVAILABLE, detail=str(error)) from error

    def _get_engine(self) -> Engine:
        if self._engine is None:
            self._engine = _sqlite(self._url) if self._is_sqlite else _postgresql(self._url)
        return self._engine


def _with_driver(url: URL) -> URL:
    """Hosting platforms provide `postgres://` URLs, which SQLAlchemy does not know."""
    return url if url.get_backend_name() == "sqlite" else url.set(drivername="postgresql+psycopg")


def _postgresql(url: URL) -> Engine:
    # Behind a pooler each transaction may get another server connection, which lacks our prepared statements.
    options = {"connect_timeout": 5, "tcp_user_timeout": 10_000, "prepare_threshold": None}
    engine = _new_engine(url, options)

    @event.listens_for(engine, "connect")
    def set_timeout(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_MILLISECONDS}")
        connection.commit()

    return engine


def _sqlite(url: URL) -> Engine:
    with contextlib.suppress(OSError):  # The error of opening the file is more helpful.
        Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
    engine = _new_engine(url, {"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # Otherwise sqlite3 begins transactions itself: see `begin`.
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads before it writes fails if another has written in between, so it takes the lock at once.
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _write_to_sqlite(session: Session) -> None:
    """Rewrites the user version: only a commit of a changed page writes to the disk, a lock or a rollback does not."""
    version = int(session.scalar(text("PRAGMA user_version")) or 0)
    session.execute(text(f"PRAGMA user_version = {version}"))


def _write_to_postgresql(session: Session) -> None:
    """Locks a row, which is written to the WAL. Skips it if a migration holds it: then the database takes writes."""
    row: Select[Any] = select(column("version_num")).select_from(table(VERSION_TABLE))
    session.execute(row.with_for_update(skip_locked=True))
    if missing := session.scalars(privileges.MISSING).all():
        raise UpstreamUnavailable(UNAVAILABLE, detail=privileges.explain(missing))


def _new_engine(url: URL, connect_args: dict[str, Any]) -> Engine:
    return create_engine(
        url,
        connect_args=connect_args,
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        pool_recycle=MAX_CONNECTION_AGE_SECONDS,
        pool_pre_ping=url.get_backend_name() != "sqlite",
        hide_parameters=True,
    )


def _is_locked(error: BaseException | None) -> bool:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
