"""`flask db`, as a deploy runs it."""

import sqlite3
import subprocess
import sys
from uuid import uuid4

import pytest

from tests.live import INHERITED, PROXY_SECRET, ROOT, Browser

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

PRODUCTION = {"APP_ENV": "production", "AUTH_MODE": "proxy", "AUTH_PROXY_SECRET": PROXY_SECRET, "SECRET_KEY": "k" * 32}


def flask_db(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flask", "db", *arguments],
        cwd=ROOT,
        env={**INHERITED, **PRODUCTION, **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_deploy_makes_the_tables_and_the_server_finds_them(start, tmp_path):
    url = f"sqlite:///{tmp_path}/chat.db"
    assert "no tables" in flask_db("current", DATABASE_URL=url).stdout
    assert "0004" in flask_db("upgrade", DATABASE_URL=url).stdout
    server = start("gunicorn", DATABASE_URL=url, **PRODUCTION)

    made = Browser(server).request("POST", "/api/conversations", {"title": "First"})

    assert made.json()["title"] == "First"
    assert "0003" in flask_db("downgrade", "-1", DATABASE_URL=url).stdout


@pytest.mark.parametrize(
    ("arguments", "address", "said"),
    [
        (("upgrade", "nonsense"), "", "no such revision"),
        (("upgrade",), "postgresql://chat:password@127.0.0.1:1/chat", "cannot be reached"),
        (("upgrade",), "sqlite:////proc/nowhere/chat.db", "cannot be reached"),
        (("upgrade",), "mysql://chat:password@127.0.0.1/chat", "DATABASE_URL is neither"),
    ],
    ids=["no revision", "nobody there", "no directory", "another database"],
)
def test_what_goes_wrong_is_one_sentence(tmp_path, arguments, address, said):
    failed = flask_db(*arguments, DATABASE_URL=address or f"sqlite:///{tmp_path}/chat.db")

    assert failed.returncode != 0
    assert said in failed.stderr
    assert "Traceback" not in failed.stderr
    assert "password" not in failed.stdout + failed.stderr


def test_the_database_is_opened_at_its_first_use(start, tmp_path):
    server = start("gunicorn", DATABASE_URL=f"sqlite:///{tmp_path}/chat.db")

    assert not (tmp_path / "chat.db").exists()
    Browser(server).request("GET", "/api/conversations").read()
    assert Browser(server).request("GET", f"/api/conversations/{uuid4()}").json()["code"] == "not_found"

    assert "Traceback" not in server.log, "somebody's mistake is no fault of ours"
    with sqlite3.connect(tmp_path / "chat.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
