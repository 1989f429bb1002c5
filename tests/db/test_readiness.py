"""Health checks of a database that can be read but not written, with real files and servers."""

import resource
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from bff.db.database import Database
from bff.db.store import ConversationStore
from bff.errors import UpstreamUnavailable
from tests.db.postgres import Postgres, running_postgres
from tests.db.talk import ConversationBrowser
from tests.live import Browser, Server, eventually, status_of

UNREADY = {"status": "unready", "broker": "ok", "database": "upstream_unavailable"}
READY = {"status": "ready", "broker": "ok", "database": "ok"}


def is_writable(database: Database) -> bool:
    """The result of a write check; the database must be readable."""
    store = ConversationStore(database)
    store.check()
    try:
        store.check_writes()
    except UpstreamUnavailable:
        return False
    return True


def readiness(server: Server) -> tuple[int, dict]:
    reply = Browser(server).request("GET", "/readyz")
    return reply.status, reply.json()


def test_write_checks_change_nothing(database):
    assert is_writable(database)
    assert is_writable(database)
    assert ConversationStore(database).recent("ada", 10).rows == []
    assert database.current() == database.upgrade()


def test_a_write_check_writes_to_the_sqlite_file(tmp_path):
    file = tmp_path / "chat.db"
    database = Database(f"sqlite:///{file}")
    database.upgrade()
    with closing(sqlite3.connect(file)) as other:
        other.execute("PRAGMA user_version = 7")
        other.commit()
        log = Path(f"{file}-wal")
        size = log.stat().st_size

        assert is_writable(database)

        assert log.stat().st_size > size
        assert other.execute("PRAGMA user_version").fetchone() == (7,)
    database.close()


@pytest.mark.live
@pytest.mark.timeout(120)
def test_a_write_check_locks_a_row_in_postgresql(postgres):
    url = postgres.url()
    database = Database(url)
    database.upgrade()

    with psycopg.connect(url.replace("postgres:", "postgresql:"), autocommit=True) as connection:
        lockers = set()
        for _ in range(3):
            assert is_writable(database)
            lockers |= {row[0] for row in connection.execute("SELECT xmax::text FROM chat_alembic_version")}

    assert len(lockers) == 3
    database.close()


def test_a_read_only_sqlite_file_is_not_writable(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # The folder of a `file:` URI is created in the working directory.
    writing = Database(f"sqlite:///{tmp_path}/chat.db")
    writing.upgrade()
    reading = Database(f"sqlite:///file:{tmp_path}/chat.db?mode=ro&uri=true")

    assert is_writable(writing)
    assert not is_writable(reading)

    reading.close()
    writing.close()


@pytest.mark.live
def test_readyz_fails_while_the_disk_is_full(start, tmp_path):
    """RLIMIT_FSIZE keeps the process's files from growing, as a full disk does."""
    file = tmp_path / "chat.db"
    server = start(DATABASE_URL=f"sqlite:///{file}")
    talk = ConversationBrowser(server)
    conversation = talk.begin("before")
    _, hard = resource.prlimit(server.worker_pid, resource.RLIMIT_FSIZE)

    resource.prlimit(server.worker_pid, resource.RLIMIT_FSIZE, (Path(f"{file}-wal").stat().st_size, hard))
    assert readiness(server) == (503, UNREADY)
    assert [message["content"] for message in talk.stored_messages(conversation)] == ["before"], "reads still work"

    resource.prlimit(server.worker_pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert eventually(lambda: readiness(server) == (200, READY), 15)


@pytest.mark.live
def test_a_write_check_waits_for_a_lock(start, tmp_path):
    file = tmp_path / "chat.db"
    server = start(DATABASE_URL=f"sqlite:///{file}")
    ConversationBrowser(server).begin()

    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(1) as pool:
            checking = pool.submit(readiness, server)
            assert status_of(Browser(server).request("GET", "/healthz")) == 200, "other requests are not blocked"
            other.execute("ROLLBACK")

            assert checking.result(20) == (200, READY)


@pytest.mark.live
@pytest.mark.timeout(120)
@pytest.mark.parametrize("setting", ["on", "off"])
def test_read_only_transactions_of_postgresql_are_not_writable(postgres, setting):
    url = postgres.url()
    database = Database(url)
    database.upgrade()
    database.close()
    name = url.rpartition("/")[2]
    with psycopg.connect(url.replace("postgres:", "postgresql:"), autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {setting}')

    assert is_writable(database) == (setting == "off")

    database.close()


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server for one test, which restarts it."""
    with running_postgres() as server:
        yield server


@pytest.mark.live
@pytest.mark.timeout(120)
def test_a_postgresql_standby_is_not_writable(own_postgres):
    url = own_postgres.url()
    database = Database(url)
    database.upgrade()
    assert is_writable(database)
    database.close()

    own_postgres.restart_as_standby()
    assert not is_writable(database)

    with psycopg.connect(url.replace("postgres:", "postgresql:"), autocommit=True) as connection:
        connection.execute("SELECT pg_promote()")
    assert eventually(lambda: is_writable(database), 20)
    database.close()


@pytest.mark.live
@pytest.mark.timeout(120)
def test_a_write_check_does_not_wait_for_a_migration(postgres):
    url = postgres.url()
    database = Database(url)
    database.upgrade()

    with psycopg.connect(url.replace("postgres:", "postgresql:")) as connection:
        connection.execute("UPDATE chat_alembic_version SET version_num = version_num")
        assert is_writable(database)

    database.close()
