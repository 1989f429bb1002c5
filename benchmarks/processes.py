"""Child processes: started on a core of their own, read out of /proc, stopped whatever happens."""

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
    """Something cannot be measured here; says why in a sentence."""


class Cores(NamedTuple):
    """The core of the server, and that of the broker stand-in and the load generator together; None: wherever they like."""

    server: int | None
    driver: int | None


def cores(pin: bool) -> Cores:
    """The last core is the server's: the first one serves most interrupts."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[-1], usable[0]) if pin and len(usable) > 1 else Cores(None, None)


def raise_file_limit() -> int:
    """File descriptors a process may have, from here on in every child too."""
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
        [str(word) for word in command],
        env=environment,
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=errors,
        start_new_session=True,  # A group of its own: ctrl-C reaches us alone, and its workers can be stopped with it.
        preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
    )
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Politely, then with its whole group; nothing of it is left when this returns."""
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
    """Those who serve: a master's children, or the process itself where there is no master."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children] or [pid]


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of all threads, in steps of a clock tick (10 ms)."""
    ticks = 0
    for pid in pids:
        # The command's name stands in brackets and may hold spaces; utime and stime are the 12th and 13th field after it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def memory_kib(pids: Sequence[int]) -> int:
    """Proportional set size: pages shared with a master count by halves. Resident set size where the kernel has no Pss."""
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
    """Raises Unavailable when nobody listens there in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise Unavailable("it does not start")
