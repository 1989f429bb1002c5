"""Child processes: starts them on a core, reads their CPU and memory from /proc, and always stops them."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final, NamedTuple

OUT: Final = Path(__file__).parent / "out"
TICKS: Final = os.sysconf("SC_CLK_TCK")
STOP_SECONDS: Final = 3.0


class Unavailable(Exception):
    """Something cannot be measured; the message says why."""


class Cores(NamedTuple):
    """The core of the server, and the core shared by broker stand-in and load generator; None: not pinned."""

    server: int | None
    driver: int | None


def cores(pin: bool) -> Cores:
    """Gives the server the last core, as the first one handles most interrupts."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[-1], usable[0]) if pin and len(usable) > 1 else Cores(None, None)


def raise_file_limit() -> int:
    """Raises the soft limit on file descriptors to the hard limit, for child processes too; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    core: int | None,
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    output: int | IO[bytes],
    errors: int | IO[bytes],
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [str(argument) for argument in command],
        env=environment,
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=errors,
        start_new_session=True,  # Its own group: ctrl-C does not reach it, and its workers can be killed with it.
        preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
    )
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Terminates the process, then kills its process group; returns when all of it has exited."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def workers(pid: int) -> list[int]:
    """The serving processes: a master's children, or the process itself if it has none."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children] or [pid]


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of all threads, in steps of a clock tick (10 ms)."""
    ticks = 0
    for pid in pids:
        # The command's name is in brackets and may contain spaces; utime and stime are the 12th and 13th fields after it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def memory_kib(pids: Sequence[int]) -> int:
    """Proportional set size, which divides shared pages by their users; resident set size if the kernel has no Pss."""
    return sum(_pss_kib(pid) or _rss_kib(pid) for pid in pids)


def _pss_kib(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def _rss_kib(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float) -> None:
    """Raises Unavailable if nothing listens on the port in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise Unavailable("the server does not start")
