"""Starts server processes by forking one that has already imported their modules, which is most of what a start costs.

`python -m tests.prefork gevent` is a process to fork servers from: it reads requests from the socket that is its standard
input. Each has a JSON object and two descriptors: the log, and a pipe to which the exit status is written. `gevent` patches
the standard library before it imports anything, as gunicorn's worker does; `threads` does not.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import warnings
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
STATUS = struct.Struct("i")
MAX_REQUEST = 1 << 16
PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>."""


class Process:
    """A server's process, with the part of Popen's interface that the tests use."""

    def __init__(self, world: str, command: list[str], environment: dict[str, str], log: int) -> None:
        """`command`: a module and its arguments. `world`: "gevent" or "threads"."""
        self._status, status = os.pipe()
        self._lock = threading.Lock()
        self.returncode: int | None = None
        request = json.dumps({"command": command, "environment": environment}).encode()
        self.pid = _send(world, request, [log, status])
        os.close(status)

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Raises TimeoutExpired."""
        with self._lock:
            if self.returncode is None:
                poll = select.poll()
                poll.register(self._status, select.POLLIN)
                if not poll.poll(timeout * 1000):
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
                (self.returncode,) = STATUS.unpack(os.read(self._status, STATUS.size))
                os.close(self._status)
            return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


_sending = threading.Lock()


def _send(world: str, request: bytes, descriptors: list[int]) -> int:
    """The new process's id."""
    with _sending:
        parent = _parent(world)
        socket.send_fds(parent, [request], descriptors)
        return STATUS.unpack(parent.recv(STATUS.size))[0]


@cache
def _parent(world: str) -> socket.socket:
    """Ends when this process ends, with its socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.prefork", world], cwd=ROOT, stdin=theirs, start_new_session=True
        )
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


def serve(world: str) -> dict[str, Any]:
    """Forks a process for each request; returns the request, in that process only."""
    control = socket.socket(fileno=os.dup(0))
    if world == "gevent":
        _patch()
    _import()
    gc.collect()
    gc.freeze()  # A server's own collections then visit, and so copy, only its own objects.
    poll, running = select.poll(), {}
    poll.register(control, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor in running:
                poll.unregister(descriptor)
                _report_exit(descriptor, *running.pop(descriptor))
                continue
            text, descriptors, *_ = socket.recv_fds(control, MAX_REQUEST, 2)
            if not text:
                sys.exit()
            log, status = descriptors
            pid = os.fork()
            if pid == 0:
                control.close()
                for inherited in [status, *running, *(pipe for _, pipe in running.values())]:
                    os.close(inherited)
                return json.loads(text) | {"log": log}
            os.close(log)
            pidfd = os.pidfd_open(pid)
            running[pidfd] = pid, status
            poll.register(pidfd, select.POLLIN)
            control.send(STATUS.pack(pid))


def _report_exit(pidfd: int, pid: int, status: int) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(BrokenPipeError):  # Nobody waits for it any more.
        os.write(status, STATUS.pack(code))
    os.close(status)
    os.close(pidfd)


def _patch() -> None:
    """Patches what modules keep references to. gunicorn's worker patches the rest; its master must not run an event loop."""
    from gevent import config, monkey

    config.track_greenlet_tree = False
    metadata.entry_points = cache(metadata.entry_points)  # gevent asks for them 25 times, and each time reads 100 files.
    warnings.filterwarnings("ignore", category=monkey.MonkeyPatchWarning)  # The worker patches all the rest.
    monkey.patch_all(os=False, select=False, signal=False, subprocess=False)


def _import() -> None:
    for module in ("gunicorn.app.wsgiapp", "gunicorn.workers.ggevent", "redis", "bff.app", "bff.broker.worker"):
        importlib.import_module(module)


def become(request: dict[str, Any]) -> None:
    """Makes this process the one that the request describes, up to its module."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # If the tests are killed, their servers are not left behind.
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, target in ((nothing, 0), (request["log"], 1), (request["log"], 2)):
        os.dup2(descriptor, target)
    os.close(nothing)
    os.close(request["log"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ or int(os.environ.get("WEB_CONCURRENCY", "1")) > 1:
        for name in [name for name in sys.modules if name.split(".")[0] in ("bff", "prometheus_client")]:
            del sys.modules[name]  # Metrics decide as they are imported whether they are shared by processes.
    sys.argv = ["", *request["command"][1:]]


def exit_without_teardown(status: int) -> None:
    """Exits as the interpreter does, but frees no objects: in a forked process, that takes half a second of CPU time."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    request = serve(sys.argv[1])
    become(request)
    try:
        runpy.run_module(request["command"][0], run_name="__main__", alter_sys=True)
    except SystemExit as exit_:
        if exit_.code is not None and not isinstance(exit_.code, int):
            raise
        exit_without_teardown(exit_.code or 0)
