"""A PostgreSQL server for the tests, on a free port, in a temporary directory, without a password."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from tests.live import free_port
from tests.missing import missing

START_SECONDS = 60.0


class Postgres:
    """`url()` creates a database and returns its URL."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._user = _user()
        self._folder = Path(tempfile.mkdtemp(prefix="chat-postgres-"))
        self.port = free_port()
        self._numbers = count(1)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._user:
            shutil.chown(self._folder, self._user["user"], self._user["group"])
        data = str(self._folder / "data")
        initdb = ["initdb", "-D", data, "-U", "chat", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(self._command(initdb), check=True, capture_output=True, cwd="/", **self._user)
        self._launch()

    def restart_as_standby(self) -> None:
        """In recovery without a primary: read-only until `pg_promote()`."""
        self._terminate()
        (self._folder / "data" / "standby.signal").touch()
        self._launch()

    def _launch(self) -> None:
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "50",
            "timezone": "Asia/Kathmandu",
        }
        command = ["postgres", "-D", str(self._folder / "data"), "-p", str(self.port)]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(self._command(command), stdout=log, stderr=log, cwd="/", **self._user)
        self._wait()

    def _command(self, parts: list[str]) -> list[str]:
        return [str(self._programs / parts[0]), *parts[1:]]

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self._url("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self._folder / "log").read_text()
                time.sleep(0.05)
            else:
                return

    def _url(self, name: str) -> str:
        return f"postgresql://chat@127.0.0.1:{self.port}/{name}"

    def url(self) -> str:
        name = f"chat_{next(self._numbers)}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self._url(name).replace("postgresql:", "postgres:")

    def stop(self) -> None:
        self._terminate()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _terminate(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # Fast shutdown, which disconnects clients.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process.kill()
            self._process.wait(10)


def _user() -> dict[str, Any]:
    """Arguments of `Popen` that select another user than root, as which PostgreSQL refuses to run."""
    if os.getuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    entry = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """If PostgreSQL is not installed, the test is skipped; in CI it fails."""
    path = _programs()
    if path is None:
        missing("PostgreSQL")
    server = Postgres(path)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _programs() -> Path | None:
    """The directory of PostgreSQL's programs; None if it is not installed."""
    if (initdb := shutil.which("initdb")) is not None:
        return Path(initdb).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
