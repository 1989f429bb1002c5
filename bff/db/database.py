"""A transaction on SQLite or PostgreSQL, without stopping the hub; every exception of the libraries becomes one of ours.

psycopg waits with gevent. SQLite waits inside its own C: under gevent its calls are made in a real thread, and a lock is
asked for again and again from outside, so that those who only read need not queue behind it.
"""

import contextlib
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection, Engine, Select, column, create_engine, event, make_url, select, table, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from bff.config.settings import Settings
from bff.db import migrations
from bff.errors import UpstreamUnavailable
from bff.http import waiting

T = TypeVar("T")

POOL_SIZE: Final = 5
"""A process's connections at most: small plans allow some 20. None is held while a stream runs."""
POOL_SECONDS: Final = 10.0
LOCKED_SECONDS: Final = 10.0
"""For how long another process may hold SQLite's write lock."""
LOCK_ASKED_SECONDS: Final = 0.05
"""Of a wait inside SQLite."""
STATEMENT_MILLISECONDS: Final = 15_000
CONNECTION_SECONDS: Final = 300
"""Of a connection's life: what stands between us and the database may drop an old one."""

SENTENCE: Final = "Conversations cannot be reached. Please try again in a moment."


def open_database(settings: Settings) -> "Database":
    """Its tables are brought up to date in development; elsewhere that is a step of the deploy."""
    return Database(settings.database_url, migrate=settings.development)


class Database:
    """Nothing is opened before its first use. `migrate`: the tables are brought up to date then."""

    def __init__(self, url: str, *, migrate: bool = False) -> None:
        self._url = _known(make_url(url))
        self._migrate = migrate
        self._opening = threading.Lock()
        self._engine: Engine | None = None
        self._aside = waiting.ThreadExecutor() if self._is_sqlite else None

    @property
    def _is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    def read(self, work: Callable[[Session], T]) -> T:
        """`work` may run more than once. Raises UpstreamUnavailable, and what `work` raises."""
        return self._run(partial(self._transaction, work, writes=False))

    def write(self, work: Callable[[Session], T]) -> T:
        """Like `read`; what `work` did is kept when it returns, all of it, and not when it raises."""
        return self._run(partial(self._transaction, work, writes=True))

    def check_writes(self) -> None:
        """Commits a write that changes nothing. Raises UpstreamUnavailable while the database takes none."""
        self.write(_write_to_sqlite if self._is_sqlite else _write_to_postgresql)

    def upgrade(self, revision: str = migrations.HEAD) -> str:
        """The revision the tables are at then; so do the others."""
        return self._migrated(partial(migrations.upgrade, revision=revision))

    def downgrade(self, revision: str) -> str:
        return self._migrated(partial(migrations.downgrade, revision=revision))

    def current(self) -> str:
        return self._migrated(lambda _: None)

    def close(self) -> None:
        """Its connections; the next use opens new ones."""
        engine, self._engine = self._engine, None
        if engine is not None:
            self._run(engine.dispose)

    def _migrated(self, change: Callable[[Connection], None]) -> str:
        def work() -> str:
            with self._made().execution_options(writes=True).begin() as connection:
                change(connection)
                return migrations.current(connection)

        return self._run(work)

    def _run(self, do: Callable[[], T]) -> T:
        give_up = monotonic() + LOCKED_SECONDS
        while True:
            try:
                return self._aside(do) if self._aside is not None else do()
            except (SQLAlchemyError, sqlite3.Error) as error:
                cause = error.orig if isinstance(error, DBAPIError) else error
                if not _is_locked(cause) or monotonic() >= give_up:
                    raise UpstreamUnavailable(SENTENCE, detail=_said(cause or error)) from error
            time.sleep(random.uniform(0.01, 0.05))  # noqa: S311 - jitter

    def _transaction(self, work: Callable[[Session], T], *, writes: bool) -> T:
        engine = self._opened().execution_options(writes=writes)
        with Session(engine, expire_on_commit=False) as session, session.begin():
            return work(session)

    def _opened(self) -> Engine:
        with self._opening:
            engine = self._made()
            if self._migrate:
                with engine.execution_options(writes=True).begin() as connection:
                    migrations.upgrade(connection)
                self._migrate = False
            return engine

    def _made(self) -> Engine:
        if self._engine is None:
            self._engine = _sqlite(self._url) if self._is_sqlite else _postgresql(self._url)
        return self._engine


def _known(url: URL) -> URL:
    """Platforms say `postgres://`, which names no driver."""
    return url if url.get_backend_name() == "sqlite" else url.set(drivername="postgresql+psycopg")


def _postgresql(url: URL) -> Engine:
    # A pooler in between may give each transaction another connection, which knows none of our prepared statements.
    options = {"connect_timeout": 5, "tcp_user_timeout": 10_000, "prepare_threshold": None}
    engine = _new_engine(url, options)

    @event.listens_for(engine, "connect")
    def bound(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {STATEMENT_MILLISECONDS}")
        connection.commit()

    return engine


def _sqlite(url: URL) -> Engine:
    with contextlib.suppress(OSError):  # Opening the file says better what is wrong.
        Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
    engine = _new_engine(url, {"timeout": LOCK_ASKED_SECONDS, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # Python would begin transactions when it sees fit: see `begin`.
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # Who reads first and writes later may find that another has written in between, and no waiting would help.
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _write_to_sqlite(session: Session) -> None:
    """A page of the file, which goes to the log at the commit: a lock alone, or a roll-back, would not touch the disk."""
    version = int(session.scalar(text("PRAGMA user_version")) or 0)
    session.execute(text(f"PRAGMA user_version = {version}"))


def _write_to_postgresql(session: Session) -> None:
    """A row lock is in the row and in the log, and leaves nothing to clean up. A migration that holds the row writes itself."""
    row: Select[Any] = select(column("version_num")).select_from(table(migrations.VERSION_TABLE))
    session.execute(row.with_for_update(skip_locked=True))


def _new_engine(url: URL, connect_args: dict[str, Any]) -> Engine:
    return create_engine(
        url,
        connect_args=connect_args,
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=POOL_SECONDS,
        pool_recycle=CONNECTION_SECONDS,
        pool_pre_ping=url.get_backend_name() != "sqlite",
        hide_parameters=True,
    )


def _is_locked(error: BaseException | None) -> bool:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _said(error: BaseException) -> str:
    """The first line, which holds nobody's words."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
