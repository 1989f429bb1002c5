"""A real Redis server on a free port."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from bff.ops.redis import connect
from tests.live import eventually, free_port
from tests.missing import missing

REDIS_SERVER = os.environ.get("REDIS_SERVER") or shutil.which("redis-server")
"""Another server with Redis's protocol may be tested, such as Valkey's."""


def redis_or_skip() -> str:
    """The path of the program. If it is not installed, the test is skipped; in CI it fails."""
    if REDIS_SERVER is None:
        missing("redis-server")
    return REDIS_SERVER


class RedisServer:
    """Has no persistence by default. After a restart it has the same port and folder."""

    def __init__(self, folder: Path, *options: str, password: str = "") -> None:
        self.port = free_port()
        self.folder = folder
        self._options = ["--requirepass", password, *options] if password else [*options]
        secret = f":{password}@" if password else ""
        self.url = f"redis://{secret}127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        command = [redis_or_skip(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen([*command, *self._options], stdout=log, stderr=log)
        assert eventually(self._is_up, 20), (self.folder / "redis.log").read_text()

    def _is_up(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        return False

    def flush(self) -> None:
        with connect(self.url) as client:
            client.flushall()

    def stop(self, signum: int = signal.SIGTERM) -> None:
        self.process.send_signal(signum)
        self.process.wait(20)

    def __enter__(self) -> "RedisServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.thaw()
        self.stop()

    def freeze(self) -> None:
        """Stops the process: connections stay open, and commands get no reply."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)
