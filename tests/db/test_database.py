from collections import Counter
from time import monotonic

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from bff.db import database as module
from bff.db.database import POOL_SIZE, Database
from bff.errors import UpstreamUnavailable
from tests.live import in_parallel


@pytest.fixture
def database(postgres):
    database = Database(postgres.url())
    yield database
    database.close()


def sleep(seconds: float):
    def work(session: Session) -> None:
        session.execute(text(f"SELECT pg_sleep({seconds})"))

    return work


def test_busy_callers_do_not_overtake_those_who_wait_for_a_connection(database):
    end = monotonic() + 1
    transactions: Counter[int] = Counter()

    def call(number: int) -> None:
        while monotonic() < end:
            database.read(sleep(0.002))
            transactions[number] += 1

    in_parallel(2 * POOL_SIZE, call)

    assert min(transactions.values()) * 10 > max(transactions.values())


def test_a_transaction_that_gets_no_connection_in_time_fails(database, monkeypatch):
    monkeypatch.setattr(module, "POOL_TIMEOUT_SECONDS", 0.2)
    errors: list[str] = []

    def call(_: int) -> None:
        try:
            database.read(sleep(1))
        except UpstreamUnavailable as error:
            errors.append(error.detail)

    in_parallel(POOL_SIZE + 1, call)

    assert errors == ["no connection to the database was free for 0.2 s"]
    database.read(sleep(0))
