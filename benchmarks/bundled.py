"""What a stream to the bundled broker costs in two checkouts, in turns: `.venv/bin/python benchmarks/bundled.py BEFORE AFTER`.

All is in the one web process: browser's stream, broker, and the engine but where a stand-in is named (silent or talking).
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
from turns import in_turns, rounds

ROUNDS: Final = 3
RATE: Final = 50
STREAMS: Final = 100
WINDOW_SECONDS: Final = 5.0


SILENCE: Final = "silence"
WORD: Final = "hi"
WORDS: Final = "t=0 " * 700
"""The load generator counts what looks like a time."""


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An engine's stream of words, or silence for a message that says so."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        frame = b'data: {"type":"progress","text":"t=0 "}\n\n'
        begun = time.monotonic()
        async for _ in _beats(begun, silent=b"silence" in body):
            writer.write(b"%x\r\n%s\r\n" % (len(frame), frame))
            await writer.drain()


async def _beats(begun: float, silent: bool) -> AsyncIterator[None]:
    number = 0
    while True:
        number += 1
        await asyncio.sleep(3600 if silent else max(0.0, begun + number / RATE - time.monotonic()))
        yield


def _serve(ports: "Queue[int]", core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})

    async def main() -> None:
        server = await asyncio.start_server(_answer, "127.0.0.1", 0, backlog=1024)
        ports.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


@contextlib.contextmanager
def engine(pinned: Cores) -> Iterator[str]:
    ports: Queue[int] = Queue()
    process = Process(target=_serve, args=(ports, pinned.driver), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ports.get(timeout=10)}"
    finally:
        process.kill()
        process.join()


class Web:
    def __init__(self, port: int, pid: int, core: int | None) -> None:
        self._port, self._core = port, core
        self._master = pid
        self.pids: list[int] = []

    def find_workers(self) -> None:
        """Once it has answered: the port is open before anybody serves it."""
        self.pids = workers(self._master)

    def load(self, message: str, streams: int, rate: float = 0, pending: int = 0) -> contextlib.AbstractContextManager[Load]:
        headers = {"X-Proxy-Secret": SECRET, "X-Forwarded-User": f"user-{time.monotonic_ns()}-{{n}}"}
        request = Request.post("/api/chat/stream", headers, message)
        return driver.load(self._core, self._port, request, streams, rate, pending)

    def answer(self, message: str, streams: int, rate: float) -> None:
        """All of them, to their ends."""
        with self.load(message, streams, rate) as load:
            report = load.end(30)
        assert report["completed"] == streams, report

    def get(self, path: str) -> Any:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)) as connection:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())

    def descriptors(self) -> int:
        return sum(1 for pid in self.pids for _ in Path(f"/proc/{pid}/fd").iterdir())


@contextlib.contextmanager
def web(checkout: Path, pinned: Cores, app: str = "app:app", **settings: str) -> Iterator[Web]:
    port = free_port()
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ} | OURS
    environment |= {"PORT": str(port), **settings}
    command = [sys.executable, "-m", "gunicorn", app]
    with (
        Path("/dev/null").open("wb") as nowhere,
        running(
            command, pinned.server, environment=environment, directory=checkout, output=nowhere, errors=sys.stderr.fileno()
        ) as process,
    ):
        wait_for_port(port, process, 30)
        place = Web(port, process.pid, pinned.driver)
        with place.load(SILENCE if "ENGINE_BASE_URL" in settings else WORD, 1) as load:
            load.opened(15)
        place.find_workers()
        yield place


def idle(checkout: Path, pinned: Cores, streams: int) -> dict[str, float]:
    with engine(pinned) as url, web(checkout, pinned, ENGINE_BASE_URL=url, ENGINE_API_KEY="key", MAX_RUNNING="1") as place:
        time.sleep(0.5)
        memory, descriptors = memory_kib(place.pids), place.descriptors()
        with place.load(SILENCE, streams, pending=32) as load:
            load.opened(15 + streams / 100)
            time.sleep(1.5)
            assert load.mark()["open"] == streams
            return {
                f"KiB per idle stream, {streams:,} open": (memory_kib(place.pids) - memory) / streams,
                f"descriptors per stream, {streams:,} open": (place.descriptors() - descriptors) / streams,
            }


def starts(checkout: Path, pinned: Cores) -> dict[str, float]:
    with web(checkout, pinned) as place:
        place.answer(WORD, 500, 100)
        before = cpu_seconds(place.pids)
        place.answer(WORD, 600, 100)
        return {"CPU ms per answer of one word": (cpu_seconds(place.pids) - before) * 1000 / 600}


def events(place: Web, message: str = WORDS) -> dict[str, float]:
    with place.load(message, STREAMS, 50) as load:
        load.opened(30)
        time.sleep(2)
        load.mark()
        before = cpu_seconds(place.pids)
        time.sleep(WINDOW_SECONDS)
        used = cpu_seconds(place.pids) - before
        report = load.mark()
        return {"us": used * 1e6 / report["events"], "rate": report["events_per_second"]}


def echoed(checkout: Path, pinned: Cores) -> dict[str, float]:
    with web(checkout, pinned, ECHO_WORD_SECONDS=str(1 / RATE)) as place:
        said = events(place)
    return {"CPU µs per event, bundled engine": said["us"], "events per second, bundled engine": said["rate"]}


def relayed(checkout: Path, pinned: Cores) -> dict[str, float]:
    with engine(pinned) as url, web(checkout, pinned, ENGINE_BASE_URL=url, ENGINE_API_KEY="key") as place:
        said = events(place)
    return {"CPU µs per event, engine elsewhere": said["us"], "events per second, engine elsewhere": said["rate"]}


SCENARIOS: Final = [partial(idle, streams=1000), partial(idle, streams=2000), starts, echoed, relayed]


def main() -> None:
    compile_driver()
    raise_file_limit()
    checkouts = dict(zip(("before", "after"), [Path(word).resolve() for word in sys.argv[1:3]], strict=True))
    in_turns([partial(scenario, pinned=cores(True)) for scenario in SCENARIOS], checkouts, rounds(3, ROUNDS))


if __name__ == "__main__":
    main()
