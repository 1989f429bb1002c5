"""The command, as an operator calls it, with our own server: everything passes."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bff.api.cli.conformance.chaos import TOPIC
from bff.api.cli.conformance.checks import ALL
from tests.live import INHERITED, PROXY_SECRET, ROOT, free_port

pytestmark = pytest.mark.live

CREDENTIALS = ("--header", f"X-Proxy-Secret: {PROXY_SECRET}", "--header", "X-Forwarded-User: {user}")
IDS = [check.id for check in ALL.values() if check.topic != TOPIC]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Without any settings."""
    command = [sys.executable, "-m", "bff", "conformance", *arguments]
    return subprocess.run(command, cwd=ROOT, env=INHERITED, capture_output=True, text=True, timeout=55)


@pytest.mark.slow
def test_a_server_with_its_queue_in_memory_passes(start, tmp_path):
    server = start("gunicorn", HEARTBEAT_SECONDS="0.5", MESSAGES_PER_MINUTE="1000")
    files = tmp_path / "report.json", tmp_path / "report.xml"

    done = run(server.url, "--heartbeat", "0.6", *CREDENTIALS, "--json", str(files[0]), "--junit", str(files[1]))

    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"{len(IDS)} passed in ")
    assert_reports_are_complete(*files)


def assert_reports_are_complete(json_file: Path, junit_file: Path) -> None:
    report, suite = json.loads(json_file.read_text()), ElementTree.parse(junit_file).getroot()[0]

    assert [check["id"] for check in report["checks"]] == IDS
    assert report["passed"] == len(IDS)
    assert all(check["rule"] and check["meaning"] and check["title"] for check in report["checks"])
    assert [case.get("name") for case in suite] == IDS
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == (str(len(IDS)), "0", "0")


@pytest.mark.slow
def test_a_server_with_a_journal_passes(start, tmp_path):
    server = start("gunicorn", HEARTBEAT_SECONDS="0.5", QUEUE_FILE=f"{tmp_path}/queue.db", MESSAGES_PER_MINUTE="1000")

    done = run(server.url, "--heartbeat", "0.6", *CREDENTIALS)

    assert done.returncode == 0, done.stdout
    assert "skip" not in done.stdout


@pytest.mark.slow
def test_a_server_with_redis_passes(start, clean_redis):
    server = start("gunicorn", HEARTBEAT_SECONDS="0.5", REDIS_URL=clean_redis.url, MESSAGES_PER_MINUTE="1000")

    done = run(server.url, "--heartbeat", "0.6", *CREDENTIALS)

    assert done.returncode == 0, done.stdout
    assert "skip" not in done.stdout


@pytest.mark.slow
def test_anonymous_users_are_distinguished_by_their_cookies(start):
    server = start("gunicorn", AUTH_MODE="anonymous", HEARTBEAT_SECONDS="0.5")

    done = run(server.url, "--heartbeat", "0.6")

    assert done.returncode == 0, done.stdout
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("skip")] == ["errors.unauthorized"]


@pytest.mark.slow
def test_one_users_credentials_are_enough(start):
    server = start("gunicorn", HEARTBEAT_SECONDS="0.5", ECHO_WORD_SECONDS="0.001")

    some = "stream,resume,stop,idempotency,order,errors,conversation.foreign"
    done = run(server.url, "--only", some, *CREDENTIALS[:2], "--header", "X-Forwarded-User: ada")

    assert done.returncode == 0, done.stdout
    skipped = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("skip")]
    assert skipped == ["idempotency.users", "conversation.foreign", "errors.foreign"]


def test_a_server_that_cannot_be_reached_is_not_judged():
    done = run(f"http://127.0.0.1:{free_port()}")

    assert done.returncode == 2
    assert "cannot be judged: no connection" in done.stderr


def test_refused_credentials_are_not_a_failure(start):
    done = run(start("gunicorn").url, "--header", "X-Forwarded-User: ada")

    assert done.returncode == 2
    assert "refuses these credentials with 403: see --header" in done.stderr
