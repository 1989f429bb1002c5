"""Databases that cannot be used, with real files and servers: `flask chat doctor` and `/readyz` name the reason."""

import logging

import psycopg
import pytest

from bff.db.database import Database
from bff.ops import health
from tests.live import new_app

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

TABLES = "chat_conversations, chat_messages, chat_preferences, chat_responses, chat_alembic_version"


@pytest.fixture
def url(postgres) -> str:
    """A database with our tables, in PostgreSQL."""
    url = postgres.url()
    database = Database(url)
    database.upgrade()
    database.close()
    return str(url)


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url.replace("postgres:", "postgresql:"), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def doctor(url: str) -> list[str]:
    """What it finds wrong with the database."""
    settings = {"APP_ENV": "production", "METRICS_TOKEN": "m" * 32}
    app = new_app(DATABASE_URL=url, **settings)
    result = app.test_cli_runner().invoke(args=["chat", "doctor"])
    app.extensions["chat_bff"].store._database.close()
    assert "Traceback" not in result.output
    lines = [line.removeprefix("WRONG  ") for line in result.stdout.splitlines() if line.startswith("WRONG")]
    return [line for line in lines if "database" in line.lower()]


def app_user(url: str, *grants: str) -> str:
    """The URL of a user with these privileges only."""
    name = f"app_{url.rpartition('/')[2]}"
    execute(url, f"CREATE USER {name}", *[f"GRANT {grant} TO {name}" for grant in grants])
    return url.replace("//chat@", f"//{name}@")


def test_doctor_finds_nothing_wrong(url):
    assert doctor(url) == []


def test_doctor_names_a_read_only_database(url):
    execute(url, f'ALTER DATABASE "{url.rpartition("/")[2]}" SET default_transaction_read_only = on')

    (message,) = doctor(url)

    assert message.startswith(
        "The database cannot be used. The database is read-only: DATABASE_URL names a standby, or default_transaction_read_only"
    )


def test_a_user_with_all_privileges_passes(url):
    every = f"SELECT, INSERT, UPDATE, DELETE ON {TABLES}"

    assert doctor(app_user(url, every, "USAGE ON SEQUENCE chat_messages_number_seq")) == []


@pytest.mark.parametrize(
    ("grant", "missing"),
    [
        (f"SELECT, INSERT, UPDATE, DELETE ON {TABLES}", "USAGE ON SEQUENCE public.chat_messages_number_seq"),
        (
            f"SELECT, INSERT, UPDATE ON {TABLES}",
            "DELETE ON chat_conversations, DELETE ON chat_messages, DELETE ON chat_preferences, DELETE ON chat_responses,"
            " USAGE ON SEQUENCE public.chat_messages_number_seq",
        ),
    ],
    ids=["sequence", "delete"],
)
def test_doctor_names_missing_privileges(url, grant, missing):
    assert doctor(app_user(url, grant)) == [
        f"The database cannot be used. The user of DATABASE_URL lacks privileges: GRANT {missing}."
    ]


@pytest.mark.parametrize("grants", [(), (f"SELECT ON {TABLES}",)], ids=["nothing", "read only"])
def test_doctor_names_a_user_without_privileges(url, grants):
    (message,) = doctor(app_user(url, *grants))

    assert message.startswith("The database cannot be used. The user of DATABASE_URL lacks a privilege: GRANT it (Insufficient")


def test_doctor_names_missing_tables(postgres):
    (message,) = doctor(str(postgres.url()))

    assert message.startswith("The database cannot be used. The database lacks a table of ours: run `flask chat db upgrade`")


def test_doctor_names_another_programs_tables(postgres):
    url = str(postgres.url())
    execute(url, *[f"CREATE TABLE {name} (id INTEGER)" for name in TABLES.split(", ")])

    (message,) = doctor(url)

    assert "A table lacks a column of ours: run `flask chat db upgrade`; or it is another program's" in message


def test_doctor_names_a_read_only_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # The folder of a `file:` URI is created in the working directory.
    database = Database(f"sqlite:///{tmp_path}/chat.db")
    database.upgrade()

    (message,) = doctor(f"sqlite:///file:{tmp_path}/chat.db?mode=ro&uri=true")

    assert message.startswith("The database cannot be used. The database's file, or its folder, is read-only (")
    database.close()


def test_doctor_names_a_file_of_another_kind(tmp_path):
    (tmp_path / "chat.db").write_text("No database at all. " * 100)

    (message,) = doctor(f"sqlite:///{tmp_path}/chat.db")

    assert message.startswith("The database cannot be used. The database's file is not an SQLite database (")


def test_readiness_logs_the_reason_once(url, monkeypatch, caplog):
    monkeypatch.setattr(health, "CACHE_SECONDS", 0.0)
    app = new_app(DATABASE_URL=app_user(url, f"SELECT ON {TABLES}"))
    client = app.test_client()
    logging.getLogger(health.__name__).addHandler(caplog.handler)  # The app has replaced the root logger's handlers.

    assert {client.get("/readyz").json["database"] for _ in range(3)} == {"upstream_unavailable"}
    app.extensions["chat_bff"].store._database.close()

    logged = [record.getMessage() for record in caplog.records if "database is not ready" in record.getMessage()]
    logging.getLogger(health.__name__).removeHandler(caplog.handler)
    assert len(logged) == 1
    assert logged[0].startswith("the database is not ready: The user of DATABASE_URL lacks a privilege")
