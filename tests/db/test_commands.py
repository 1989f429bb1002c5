"""`flask chat db` as a deploy runs it, and `flask db`, its alias."""

import sqlite3
from tempfile import TemporaryFile
from typing import NamedTuple
from uuid import uuid4

import pytest

from tests import prefork
from tests.live import INHERITED, PROXY_SECRET, Browser

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

PRODUCTION = {"APP_ENV": "production", "AUTH_MODE": "proxy", "AUTH_PROXY_SECRET": PROXY_SECRET, "SECRET_KEY": "k" * 32}


class Done(NamedTuple):
    returncode: int
    output: str
    """Of both streams."""


def flask_db(*arguments: str, command: str = "chat db", **settings: str) -> Done:
    environment = {**INHERITED, **PRODUCTION, **settings}
    with TemporaryFile() as output:
        process = prefork.Process("threads", ["flask", *command.split(), *arguments], environment, output.fileno())
        returncode = process.wait(60)
        output.seek(0)
        return Done(returncode, output.read().decode())


@pytest.mark.parametrize("command", ["chat db", "db"])
def test_the_server_uses_the_tables_that_flask_chat_db_created(start, tmp_path, command):
    url = f"sqlite:///{tmp_path}/chat.db"
    assert "no tables" in flask_db("current", command=command, DATABASE_URL=url).output
    assert "0008" in flask_db("upgrade", command=command, DATABASE_URL=url).output
    server = start("gunicorn", DATABASE_URL=url, **PRODUCTION)

    created = Browser(server).request("POST", "/api/conversations", {"title": "First"})

    assert created.json()["title"] == "First"
    assert "0007" in flask_db("downgrade", "-1", command=command, DATABASE_URL=url).output


def test_another_programs_tables_are_reported_in_one_sentence(tmp_path):
    with sqlite3.connect(tmp_path / "chat.db") as connection:
        connection.execute("CREATE TABLE chat_messages (id INTEGER PRIMARY KEY)")
    connection.close()

    process = flask_db("upgrade", DATABASE_URL=f"sqlite:///{tmp_path}/chat.db")

    assert process.returncode == 1
    assert process.output.startswith(
        "This database has tables or indexes of another program with names of ours: chat_messages."
    )


@pytest.mark.parametrize(
    ("arguments", "url", "message"),
    [
        (("upgrade", "nonsense"), "", "There is no such revision"),
        (("upgrade",), "postgresql://chat:password@127.0.0.1:1/chat", "cannot be reached"),
        (("upgrade",), "sqlite:////proc/nowhere/chat.db", "cannot be reached"),
        (("upgrade",), "mysql://chat:password@127.0.0.1/chat", "DATABASE_URL is neither"),
    ],
    ids=["no revision", "nobody there", "no directory", "another database"],
)
def test_errors_are_printed_as_one_sentence(tmp_path, arguments, url, message):
    process = flask_db(*arguments, DATABASE_URL=url or f"sqlite:///{tmp_path}/chat.db")

    assert process.returncode != 0
    assert message in process.output
    assert "Traceback" not in process.output
    assert "password" not in process.output


def test_the_database_is_opened_at_the_first_request_that_needs_it(start, tmp_path):
    path = tmp_path / "missing" / "chat.db"  # `start` creates databases in existing folders only.
    server = start("gunicorn", DATABASE_URL=f"sqlite:///{path}")

    assert not path.exists()
    Browser(server).request("GET", "/api/conversations").read()
    assert Browser(server).request("GET", f"/api/conversations/{uuid4()}").json()["code"] == "not_found"

    assert "Traceback" not in server.log, "a 404 is not logged as an error"
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
