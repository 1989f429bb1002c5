"""Servers that are killed and started again while readers follow replies."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from bff.api.cli.conformance.chaos.run import run_command
from tests.api.cli.conformance.test_ourselves import CREDENTIALS
from tests.faults.engine import Engine, question
from tests.live import INHERITED, ROOT, Server, free_port

pytestmark = [pytest.mark.live, pytest.mark.servers]


class Restarted:
    """A server that a shell command kills with SIGKILL and starts again, on the same port."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self._folder = folder
        self._settings = {"LEASE_SECONDS": "1", "MESSAGES_PER_MINUTE": "1000", "DATABASE_URL": f"sqlite:///{folder}/chat.db"}
        self._settings |= settings
        self._port = free_port()
        for name in ("ask", "done"):
            os.mkfifo(folder / name)
        self.command = f"echo restart > {folder}/ask && cat {folder}/done"
        self.server = self._start()
        threading.Thread(target=self._serve, daemon=True).start()

    def _start(self) -> Server:
        return Server("gunicorn", self._folder / "log", self._port, **self._settings).wait_until_ready()

    def _serve(self) -> None:
        while (self._folder / "ask").read_text().startswith("restart"):
            self.server.crash()
            self.server = self._start()
            (self._folder / "done").write_text("done")

    def stop(self) -> None:
        (self._folder / "ask").write_text("stop")
        self.server.crash()


@pytest.fixture
def restarted(tmp_path: Path) -> Iterator[Callable[..., Restarted]]:
    servers: list[Restarted] = []

    def start(**settings: str) -> Restarted:
        servers.append(Restarted(tmp_path, **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def run(restarted: Restarted, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bff", "conformance", restarted.server.url, "--chaos", *CREDENTIALS, *arguments]
    command += ["--restart-command", restarted.command, "--streams", "6", "--duration", "8"]
    return subprocess.run(command, cwd=ROOT, env=INHERITED, capture_output=True, text=True, timeout=58)


def failed(output: str) -> list[str]:
    return [line.split()[1] for line in output.splitlines() if line.startswith("FAIL")]


@pytest.mark.slow
def test_a_server_with_a_journal_loses_nothing(restarted, tmp_path):
    done = run(restarted(QUEUE_FILE=f"{tmp_path}/queue.db"))

    assert failed(done.stdout) == [], done.stdout
    assert done.returncode == 0, done.stderr
    assert "7 passed in " in done.stdout


@pytest.mark.slow
def test_a_server_with_its_queue_in_memory_loses_messages(restarted):
    done = run(restarted(QUEUE_FILE="off"))

    assert failed(done.stdout) == ["chaos.accepted"], done.stdout
    assert "is answered with 404" in done.stdout
    assert done.returncode == 1


@pytest.mark.slow
def test_replies_of_an_engine_that_may_not_be_called_again_are_interrupted(restarted, tmp_path):
    with Engine() as engine:
        server = restarted(QUEUE_FILE=f"{tmp_path}/queue.db", ENGINE_BASE_URL=engine.url, ENGINE_API_KEY="key")

        done = run(server, "--slow-message", question("chaos", words=20, interval=0.1))

    assert failed(done.stdout) == [], done.stdout
    [ends] = [line for line in done.stdout.splitlines() if "chaos.ends" in line]
    assert re.search(r": [0-9]+ complete, [0-9]+ interrupted$", ends), done.stdout


def test_a_command_may_leave_a_server_running_in_the_background():
    started = monotonic()

    assert run_command("sleep 5 &") == ""
    assert run_command("sleep 5 & echo no such unit >&2; exit 5") == "the command ended with status 5: no such unit"
    assert monotonic() - started < 4


@pytest.mark.slow
def test_a_command_that_fails_is_reported(start):
    server = start("gunicorn", MESSAGES_PER_MINUTE="1000")
    command = [sys.executable, "-m", "bff", "conformance", server.url, "--chaos", *CREDENTIALS, "--duration", "2"]
    command += ["--restart-command", "echo no such unit >&2; exit 5", "--streams", "2"]

    done = subprocess.run(command, cwd=ROOT, env=INHERITED, capture_output=True, text=True, timeout=55)

    assert failed(done.stdout) == ["chaos.restarted"], done.stdout
    assert "the command ended with status 5: no such unit" in done.stdout
