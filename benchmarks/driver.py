"""The driver: a broker stand-in and a load generator, both in C (driver/), compiled at first use."""

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
    """Raises Unavailable where there is no C compiler, or no epoll and no /proc."""
    if sys.platform != "linux":
        raise Unavailable("The benchmarks need Linux: epoll for the driver, /proc for what is read off the servers.")
    compiler = shutil.which("cc")
    if compiler is None:
        raise Unavailable("No C compiler (cc) is here: the load generator and the broker stand-in need one.")
    BINARIES.mkdir(parents=True, exist_ok=True)
    for name in ("broker", "load"):
        source = SOURCE / f"{name}.c"
        subprocess.run(
            [compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", BINARIES / name, source], check=True, timeout=120
        )


class Plan(NamedTuple):
    """What an answer consists of: the broker stand-in reads it in the message, and in the message id."""

    mode: str
    """rate, saturate or idle."""
    rate: int = 1
    """Events a second."""
    count: int = 1_000_000
    bytes: int = 80
    """Characters of text an event; a token or two, with the time in front."""

    @property
    def message(self) -> str:
        return f"mode={self.mode} rate={self.rate} count={self.count} bytes={self.bytes}"

    @property
    def message_id(self) -> str:
        """For who asks for a stream without leaving a message first; `{n}` becomes the stream's number."""
        return f"m{{n}}-{self.mode[0]}-{self.rate}-{self.count}-{self.bytes}"


class Broker:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self.pid = process.pid
        self.port = int(process.stdout.readline())

    def go(self) -> None:
        """Every idle stream is told its answer's end, every saturating one begins."""
        os.kill(self.pid, signal.SIGUSR1)


@contextlib.contextmanager
def broker(core: int | None, *arguments: str) -> Iterator[Broker]:
    """`arguments`: "unnumbered" for one whose events have no ids."""
    with running([BINARIES / "broker", *arguments], core, output=subprocess.PIPE, errors=sys.stderr.fileno()) as process:
        yield Broker(process)


Report = dict[str, Any]
"""What driver/load.c prints: counts of streams, `events`, `seconds`, `first_event_ms` and `added_ms` (p50, p99, max)."""


class Load:
    """A load generator at work. Reports come by themselves (`opened`, `end`) or are asked for (`mark`)."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._rest = b""

    def opened(self, seconds: float) -> Report:
        """When every stream had its first event or failed; its `first_event_ms` is that of all of them."""
        return self._report("opened", seconds)

    def mark(self) -> Report:
        """What happened since the last report; the last report of all if every stream has ended meanwhile."""
        self._say(b"mark\n")
        return self._report("mark", 10)

    def end(self, seconds: float) -> Report:
        """When all streams have ended by themselves, or the last state of those that have not."""
        with contextlib.suppress(Unavailable):
            return self._report("end", seconds)
        return self.stop()

    def stop(self) -> Report:
        self._say(b"stop\n")
        return self._report("end", 20)

    def _say(self, line: bytes) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # It has ended: what it said last can still be read.
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def _report(self, at: str, seconds: float) -> Report:
        """The next report of that name, or the last one, which ends all waiting."""
        end = time.monotonic() + seconds
        while (line := self._line(end)) is not None:
            report: Report = json.loads(line)
            if report["at"] in {at, "end"}:
                return report
        raise Unavailable(f"the load generator said nothing for {seconds:.0f} s")

    def _line(self, end: float) -> bytes | None:
        assert self.process.stdout is not None
        while b"\n" not in self._rest:
            if not select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                return None
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                raise Unavailable("the load generator broke off")
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line


class Request(NamedTuple):
    """What each stream is asked for with, headers and all; `{n}` becomes the stream's number."""

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
    """`streams` opened at `start_rate` a second (0: at once), at most `pending` (0: any number) without a first event."""
    command = [BINARIES / "load", str(port), str(streams), str(start_rate), str(pending), request.text]
    with running(command, core, output=subprocess.PIPE, errors=sys.stderr.fileno()) as process:
        yield Load(process)
