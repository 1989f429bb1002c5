"""The cost of a stream with the bundled broker, in two checkouts: `.venv/bin/python benchmarks/bundled.py BEFORE AFTER`.

The browser's stream and the broker are in one web process; so is the engine, except where an engine stand-in is started.
"""

import asyncio
import contextlib
import http.client
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from multiprocessing import Process, Queue
from pathlib import Path
from typing import Any, Final

import driver
from driver import Load, Request, compile_driver
from interleaved import measure_interleaved, rounds_argument
from processes import (
    Cores,
    cores,
    cpu_seconds,
    free_port,
    memory_kib,
    raise_file_limit,
    running,
    wait_for_port,
    workers,
)
from servers import OURS, SECRET

ROUNDS: Final = 3
RATE: Final = 50
STREAMS: Final = 100
WINDOW_SECONDS: Final = 5.0

SILENCE: Final = "silence"
ONE_WORD: Final = "hi"
MANY_WORDS: Final = "t=0 " * 700
"""Words that look like timestamps: the load generator counts only those as events."""


async def _serve_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Streams RATE words a second; nothing if the message is SILENCE."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        frame = b'data: {"type":"progress","text":"t=0 "}\n\n'
        async for _ in _ticks(silent=SILENCE.encode() in body):
            writer.write(b"%x\r\n%s\r\n" % (len(frame), frame))
            await writer.drain()


async def _ticks(silent: bool) -> AsyncIterator[None]:
    start = time.monotonic()
    number = 0
    while True:
        number += 1
        await asyncio.sleep(3600 if silent else max(0.0, start + number / RATE - time.monotonic()))
        yield


def _run_engine(ports: "Queue[int]", core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})

    async def main() -> None:
        server = await asyncio.start_server(_serve_stream, "127.0.0.1", 0, backlog=1024)
        ports.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


@contextlib.contextmanager
def engine(pinned: Cores) -> Iterator[str]:
    """An engine stand-in in a process of its own; yields its URL."""
    ports: Queue[int] = Queue()
    process = Process(target=_run_engine, args=(ports, pinned.driver), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ports.get(timeout=10)}"
    finally:
        process.kill()
        process.join()


class WebServer:
    """gunicorn with one web process."""

    def __init__(self, port: int, master_pid: int, driver_core: int | None) -> None:
        self.port, self._core = port, driver_core
        self._master = master_pid
        self.pids: list[int] = []

    def find_workers(self) -> None:
        """Call after the first reply: the port is open before a worker has started."""
        self.pids = workers(self._master)

    def load(self, message: str, streams: int, rate: float = 0, pending: int = 0) -> contextlib.AbstractContextManager[Load]:
        headers = {"X-Proxy-Secret": SECRET, "X-Forwarded-User": f"user-{time.monotonic_ns()}-{{n}}"}
        request = Request.post("/api/chat/stream", headers, message)
        return driver.load(self._core, self.port, request, streams, rate, pending)

    def complete_replies(self, message: str, streams: int, rate: float) -> None:
        """Streams replies at `rate` starts a second until all are complete."""
        with self.load(message, streams, rate) as load:
            report = load.wait_ended(30)
        assert report["completed"] == streams, report

    def get(self, path: str) -> Any:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())

    def descriptors(self) -> int:
        return sum(1 for pid in self.pids for _ in Path(f"/proc/{pid}/fd").iterdir())


@contextlib.contextmanager
def web_server(checkout: Path, pinned: Cores, app: str = "app:app", **settings: str) -> Iterator[WebServer]:
    """Yields a server that has sent its first event."""
    port = free_port()
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ} | OURS
    environment |= {"PORT": str(port), **settings}
    command = [sys.executable, "-m", "gunicorn", app]
    with (
        Path("/dev/null").open("wb") as devnull,
        running(
            command, pinned.server, environment=environment, directory=checkout, output=devnull, errors=sys.stderr.fileno()
        ) as process,
    ):
        wait_for_port(port, process, 30)
        server = WebServer(port, process.pid, pinned.driver)
        with server.load(SILENCE if "ENGINE_BASE_URL" in settings else ONE_WORD, 1) as load:
            load.wait_opened(15)
        server.find_workers()
        yield server


def idle(checkout: Path, pinned: Cores, streams: int) -> dict[str, float]:
    settings = {"ENGINE_API_KEY": "key", "MAX_RUNNING": "1"}
    with engine(pinned) as url, web_server(checkout, pinned, ENGINE_BASE_URL=url, **settings) as server:
        time.sleep(0.5)
        memory, descriptors = memory_kib(server.pids), server.descriptors()
        with server.load(SILENCE, streams, pending=32) as load:
            load.wait_opened(15 + streams / 100)
            time.sleep(1.5)
            assert load.mark()["open"] == streams
            return {
                f"KiB per idle stream, {streams:,} open": (memory_kib(server.pids) - memory) / streams,
                f"descriptors per stream, {streams:,} open": (server.descriptors() - descriptors) / streams,
            }


def starts(checkout: Path, pinned: Cores) -> dict[str, float]:
    with web_server(checkout, pinned) as server:
        server.complete_replies(ONE_WORD, 500, 100)  # Warm-up.
        before = cpu_seconds(server.pids)
        server.complete_replies(ONE_WORD, 600, 100)
        return {"CPU ms per one-word reply": (cpu_seconds(server.pids) - before) * 1000 / 600}


def measure_events(server: WebServer, message: str = MANY_WORDS) -> dict[str, float]:
    """`cpu_us`, the CPU per event in µs, and `per_second`, the events received."""
    with server.load(message, STREAMS, 50) as load:
        load.wait_opened(30)
        time.sleep(2)
        load.mark()
        before = cpu_seconds(server.pids)
        time.sleep(WINDOW_SECONDS)
        used = cpu_seconds(server.pids) - before
        report = load.mark()
        return {"cpu_us": used * 1e6 / report["events"], "per_second": report["events_per_second"]}


def bundled_engine(checkout: Path, pinned: Cores) -> dict[str, float]:
    with web_server(checkout, pinned, ECHO_WORD_SECONDS=str(1 / RATE)) as server:
        events = measure_events(server)
    return {"CPU µs per event, bundled engine": events["cpu_us"], "events per second, bundled engine": events["per_second"]}


def external_engine(checkout: Path, pinned: Cores) -> dict[str, float]:
    with engine(pinned) as url, web_server(checkout, pinned, ENGINE_BASE_URL=url, ENGINE_API_KEY="key") as server:
        events = measure_events(server)
    return {"CPU µs per event, external engine": events["cpu_us"], "events per second, external engine": events["per_second"]}


SCENARIOS: Final = [partial(idle, streams=1000), partial(idle, streams=2000), starts, bundled_engine, external_engine]


def main() -> None:
    compile_driver()
    raise_file_limit()
    checkouts = dict(zip(("before", "after"), [Path(argument).resolve() for argument in sys.argv[1:3]], strict=True))
    pinned = cores(True)
    measure_interleaved([partial(scenario, pinned=pinned) for scenario in SCENARIOS], checkouts, rounds_argument(3, ROUNDS))


if __name__ == "__main__":
    main()
