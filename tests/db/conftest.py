from collections.abc import Iterator
from pathlib import Path

import pytest

from bff.db.database import Database
from tests.db.postgres import Postgres, running_postgres
from tests.live import create_tables

KINDS = ["sqlite", pytest.param("postgresql", marks=[pytest.mark.live, pytest.mark.timeout(120)])]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/chat.db"
    return str(request.getfixturevalue("postgres").url())


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    create_tables(url)
    database = Database(url)
    database.upgrade()
    yield database
    database.close()
