"""Runs the broker stand-in and the load generator, two C programs (driver/) that are compiled at first use."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from processes import OUT, Unavailable, running

SOURCE: Final = Path(__file__).parent / "driver"
BINARIES: Final = OUT / "bin"


def compile_driver() -> None:
    """Raises Unavailable without a C compiler, or without epoll and /proc."""
    if sys.platform != "linux":
        raise Unavailable("The benchmarks need Linux: epoll for the driver, /proc for the servers' CPU and memory.")
    compiler = shutil.which("cc")
    if compiler is None:
        raise Unavailable("The load generator and the broker stand-in need a C compiler (cc); none was found.")
    BINARIES.mkdir(parents=True, exist_ok=True)
    for name in ("broker", "load"):
        source = SOURCE / f"{name}.c"
        subprocess.run(
            [compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", BINARIES / name, source], check=True, timeout=120
        )


class Plan(NamedTuple):
    """The contents of a reply. The broker stand-in parses it from the message or from the message id."""

    mode: str
    """rate, saturate or idle."""
    rate: int = 1
    """Events a second."""
    count: int = 1_000_000
    bytes: int = 80
    """Characters of text per event, beginning with the time; about a token or two."""

    @property
    def message(self) -> str:
        return f"mode={self.mode} rate={self.rate} count={self.count} bytes={self.bytes}"

    @property
    def message_id(self) -> str:
        """For requests that open a stream without posting a message; `{n}` is replaced by the stream's number."""
        return f"m{{n}}-{self.mode[0]}-{self.rate}-{self.count}-{self.bytes}"


class Broker:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self.pid = process.pid
        self.port = int(process.stdout.readline())

    def proceed(self) -> None:
        """Ends every idle reply and starts every saturating one."""
        os.kill(self.pid, signal.SIGUSR1)


@contextlib.contextmanager
def broker(core: int | None, *arguments: str) -> Iterator[Broker]:
    """`arguments`: "unnumbered" sends events without ids."""
    with running([BINARIES / "broker", *arguments], core, output=subprocess.PIPE, errors=sys.stderr.fileno()) as process:
        yield Broker(process)


Report = dict[str, Any]
"""What driver/load.c prints: counts of streams, `events`, `seconds`, `first_event_ms` and `added_ms` (p50, p99, max)."""


class Load:
    """A running load generator. It reports by itself (`wait_opened`, `wait_ended`) or on request (`mark`)."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._buffer = b""

    def wait_opened(self, seconds: float) -> Report:
        """Waits until every stream has received its first event or failed; `first_event_ms` covers all of them."""
        return self._report("opened", seconds)

    def mark(self) -> Report:
        """What happened since the last report; the final report if every stream has ended meanwhile."""
        self._send(b"mark\n")
        return self._report("mark", 10)

    def wait_ended(self, seconds: float) -> Report:
        """Waits until all streams have ended; after `seconds` stops those that have not."""
        with contextlib.suppress(Unavailable):
            return self._report("end", seconds)
        return self.stop()

    def stop(self) -> Report:
        self._send(b"stop\n")
        return self._report("end", 20)

    def _send(self, line: bytes) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # It has exited; its last report can still be read.
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def _report(self, name: str, seconds: float) -> Report:
        """The next report of that name, or the final one. Raises Unavailable after `seconds`."""
        deadline = time.monotonic() + seconds
        while (line := self._read_line(deadline)) is not None:
            report: Report = json.loads(line)
            if report["at"] in {name, "end"}:
                return report
        raise Unavailable(f"the load generator sent no report for {seconds:.0f} s")

    def _read_line(self, deadline: float) -> bytes | None:
        assert self.process.stdout is not None
        while b"\n" not in self._buffer:
            if not select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return None
            chunk = os.read(self.process.stdout.fileno(), 65536)
            if not chunk:
                raise Unavailable("the load generator exited early")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


class Request(NamedTuple):
    """The raw HTTP request that opens each stream; `{n}` is replaced by the stream's number."""

    text: str

    @classmethod
    def post(cls, path: str, headers: dict[str, str], message: str) -> Self:
        body = json.dumps({"message": message})
        fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
        return cls(_head("POST", path, fields) + body)

    @classmethod
    def get(cls, path: str, plan: Plan) -> Self:
        return cls(_head("GET", f"{path}?user_id=u{{n}}&message_id={plan.message_id}", {}))


def _head(method: str, path: str, headers: dict[str, str]) -> str:
    fields = {"Host": "127.0.0.1", "Accept": "text/event-stream"} | headers
    return f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"


@contextlib.contextmanager
def load(
    core: int | None, port: int, request: Request, streams: int, start_rate: float = 0, pending: int = 0
) -> Iterator[Load]:
    """Opens `streams` at `start_rate` a second (0: at once), at most `pending` (0: any number) without a first event."""
    command = [BINARIES / "load", str(port), str(streams), str(start_rate), str(pending), request.text]
    with running(command, core, output=subprocess.PIPE, errors=sys.stderr.fileno()) as process:
        yield Load(process)
