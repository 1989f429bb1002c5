"""A database that is there and takes no writes: what a check sees of it, on real files and servers."""

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
from tests.db.postgres import Postgres, programs
from tests.db.talk import Talk
from tests.live import Browser, Server, eventually, status_of
from tests.missing import missing

UNREADY = {"status": "unready", "broker": "ok", "database": "upstream_unavailable"}
READY = {"status": "ready", "broker": "ok", "database": "ok"}


def takes_writes(database: Database) -> bool:
    """It can be read in any case."""
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


def test_a_check_changes_nothing(database):
    assert takes_writes(database)
    assert takes_writes(database)
    assert ConversationStore(database).recent("ada", 10).rows == []
    assert database.current() == database.upgrade()


def test_a_check_writes_to_the_file(tmp_path):
    file = tmp_path / "chat.db"
    database = Database(f"sqlite:///{file}")
    database.upgrade()
    with closing(sqlite3.connect(file)) as other:
        other.execute("PRAGMA user_version = 7")
        other.commit()
        log = Path(f"{file}-wal")
        size = log.stat().st_size

        assert takes_writes(database)

        assert log.stat().st_size > size
        assert other.execute("PRAGMA user_version").fetchone() == (7,)
    database.close()


@pytest.mark.live
@pytest.mark.timeout(120)
def test_a_check_writes_to_a_row(postgres):
    url = postgres.url()
    database = Database(url)
    database.upgrade()

    with psycopg.connect(url.replace("postgres:", "postgresql:"), autocommit=True) as connection:
        lockers = set()
        for _ in range(3):
            assert takes_writes(database)
            lockers |= {row[0] for row in connection.execute("SELECT xmax::text FROM alembic_version")}

    assert len(lockers) == 3
    database.close()


def test_a_read_only_file_is_seen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # A URI's folder is made where the test runs.
    writing = Database(f"sqlite:///{tmp_path}/chat.db")
    writing.upgrade()
    reading = Database(f"sqlite:///file:{tmp_path}/chat.db?mode=ro&uri=true")

    assert takes_writes(writing)
    assert not takes_writes(reading)

    reading.close()
    writing.close()


@pytest.mark.live
def test_a_full_disk_makes_a_process_unready_until_there_is_room(start, tmp_path):
    """No file of the process may grow, which is what a full disk comes to."""
    file = tmp_path / "chat.db"
    server = start(DATABASE_URL=f"sqlite:///{file}")
    talk = Talk(server)
    conversation = talk.begin("said before")
    _, hard = resource.prlimit(server.worker_pid, resource.RLIMIT_FSIZE)

    resource.prlimit(server.worker_pid, resource.RLIMIT_FSIZE, (Path(f"{file}-wal").stat().st_size, hard))
    assert readiness(server) == (503, UNREADY)
    assert [message["content"] for message in talk.kept(conversation)] == ["said before"], "it can be read all the same"

    resource.prlimit(server.worker_pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert eventually(lambda: readiness(server) == (200, READY), 15)


@pytest.mark.live
def test_a_locked_file_is_waited_for(start, tmp_path):
    file = tmp_path / "chat.db"
    server = start(DATABASE_URL=f"sqlite:///{file}")
    Talk(server).begin()

    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(readiness, server)
            assert status_of(Browser(server).request("GET", "/healthz")) == 200, "others are not kept waiting"
            other.execute("ROLLBACK")

            assert asking.result(20) == (200, READY)


@pytest.mark.live
@pytest.mark.timeout(120)
@pytest.mark.parametrize("setting", ["on", "off"])
def test_a_postgresql_whose_transactions_are_read_only_is_seen(postgres, setting):
    url = postgres.url()
    database = Database(url)
    database.upgrade()
    database.close()
    name = url.rpartition("/")[2]
    with psycopg.connect(url.replace("postgres:", "postgresql:"), autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {setting}')

    assert takes_writes(database) == (setting == "off")

    database.close()


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """Of one test, which restarts it."""
    found = programs()
    if found is None:
        missing("PostgreSQL")
    server = Postgres(found)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.mark.live
@pytest.mark.timeout(120)
def test_a_postgresql_in_recovery_is_seen(own_postgres):
    url = own_postgres.url()
    database = Database(url)
    database.upgrade()
    assert takes_writes(database)
    database.close()

    own_postgres.restart_as_standby()
    assert not takes_writes(database)

    with psycopg.connect(url.replace("postgres:", "postgresql:"), autocommit=True) as connection:
        connection.execute("SELECT pg_promote()")
    assert eventually(lambda: takes_writes(database), 20)
    database.close()


@pytest.mark.live
@pytest.mark.timeout(120)
def test_a_migration_that_runs_is_not_waited_for(postgres):
    url = postgres.url()
    database = Database(url)
    database.upgrade()

    with psycopg.connect(url.replace("postgres:", "postgresql:")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = version_num")
        assert takes_writes(database)

    database.close()
