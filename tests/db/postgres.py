"""A PostgreSQL server of the tests' own: on a free port, in a directory of its own, without a password."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from tests.live import free_port

START_SECONDS = 60.0


class Postgres:
    """`url()`: that of a new, empty database."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._user = _user()
        self._home = Path(tempfile.mkdtemp(prefix="chat-postgres-"))
        self.port = free_port()
        self._numbers = count(1)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._user:
            shutil.chown(self._home, self._user["user"], self._user["group"])
        data = str(self._home / "data")
        make = ["initdb", "-D", data, "-U", "chat", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(self._command(make), check=True, capture_output=True, cwd="/", **self._user)
        self._serve()

    def restart_as_standby(self) -> None:
        """In recovery, of a primary that never comes: it can only be read, until `pg_promote()`."""
        self._end()
        (self._home / "data" / "standby.signal").touch()
        self._serve()

    def _serve(self) -> None:
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "50",
            "timezone": "Asia/Kathmandu",
        }
        run = ["postgres", "-D", str(self._home / "data"), "-p", str(self.port)]
        run += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self._home / "log").open("wb") as log:
            self._process = subprocess.Popen(self._command(run), stdout=log, stderr=log, cwd="/", **self._user)
        self._wait()

    def _command(self, parts: list[str]) -> list[str]:
        return [str(self._programs / parts[0]), *parts[1:]]

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self._url("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self._home / "log").read_text()
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
        self._end()
        shutil.rmtree(self._home, ignore_errors=True)

    def _end(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # Now, whoever is still connected.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process.kill()
            self._process.wait(10)


def _user() -> dict[str, Any]:
    """PostgreSQL refuses to be run by root."""
    if os.getuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    who = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}


def programs() -> Path | None:
    """Where they are."""
    if (found := shutil.which("initdb")) is not None:
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
