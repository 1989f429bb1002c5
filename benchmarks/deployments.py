"""What replies cost with each queue, in direct chat and in conversations.

`.venv/bin/python benchmarks/deployments.py [ROUNDS]`. One web process with the bundled broker and engine: with the queue in
memory, with its journal (the default), and with Redis.
"""

import contextlib
import http.client
import json
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from bundled import MANY_WORDS, ONE_WORD, RATE, STREAMS, WINDOW_SECONDS, WebServer, measure_events, web_server
from driver import compile_driver
from interleaved import measure_interleaved, rounds_argument
from processes import OUT, Cores, cores, cpu_seconds, raise_file_limit
from redis_queue import redis_server
from servers import SECRET

ROUNDS: Final = 3
QUEUES: Final = {name: name for name in ("memory", "journal", "redis")}
REPLIES, REPLIES_PER_SECOND, CLIENTS = 600, 100, 8


@contextlib.contextmanager
def _server(queue: str, pinned: Cores, app: str = "app:app") -> Iterator[WebServer]:
    with tempfile.TemporaryDirectory(dir=OUT) as folder, contextlib.ExitStack() as stack:
        settings = {"QUEUE_FILE": "off", "DATABASE_URL": f"sqlite:///{folder}/chat.db", "ECHO_WORD_SECONDS": str(1 / RATE)}
        if queue == "journal":
            settings["QUEUE_FILE"] = f"{folder}/queue.db"
        if queue == "redis":
            settings["REDIS_URL"] = stack.enter_context(redis_server())
        yield stack.enter_context(web_server(Path.cwd(), pinned, app, **settings))


def replies(queue: str, pinned: Cores) -> dict[str, float]:
    with _server(queue, pinned) as server:
        server.complete_replies(ONE_WORD, REPLIES, REPLIES_PER_SECOND)  # Warm-up.
        before = cpu_seconds(server.pids)
        server.complete_replies(ONE_WORD, REPLIES, REPLIES_PER_SECOND)
        return {"CPU per one-word reply, ms": (cpu_seconds(server.pids) - before) * 1000 / REPLIES}


def events(queue: str, pinned: Cores) -> dict[str, float]:
    with _server(queue, pinned) as server:
        return {f"CPU per event, {STREAMS} streams × {RATE}/s, µs": measure_events(server)["cpu_us"]}


class Client(NamedTuple):
    """One user's conversations."""

    port: int
    user: str

    def begin(self, text: str) -> str:
        """Creates a conversation with one message, and returns its stream's path."""
        path = f"/api/conversations/{self._post('/api/conversations', {})}"
        self._post(f"{path}/messages", {"content": text})
        return f"{path}/stream"

    def _post(self, path: str, content: dict[str, str]) -> str:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("POST", path, json.dumps(content), self.headers | {"Content-Type": "application/json"})
            return str(json.loads(connection.getresponse().read())["id"])

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Proxy-Secret": SECRET, "X-Forwarded-User": self.user}

    @contextlib.contextmanager
    def stream(self, path: str) -> Iterator[socket.socket]:
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        with socket.create_connection(("127.0.0.1", self.port), 30) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode())
            yield sock


def conversation_replies(queue: str, pinned: Cores) -> dict[str, float]:
    """Creating the conversation, posting the message and streaming the reply: three requests."""
    with _server(queue, pinned) as server, ThreadPoolExecutor(CLIENTS) as executor:

        def reply(number: int) -> None:
            client = Client(server.port, f"user-{number}")
            with client.stream(client.begin(ONE_WORD)) as sock:
                received = b""
                while b"event: done" not in received:
                    received += sock.recv(65536)

        list(executor.map(reply, range(200)))  # Warm-up.
        before = cpu_seconds(server.pids)
        list(executor.map(reply, range(200, 200 + REPLIES)))
        return {"CPU per one-word reply in a conversation, ms": (cpu_seconds(server.pids) - before) * 1000 / REPLIES}


def conversation_events(queue: str, pinned: Cores) -> dict[str, float]:
    counts = [0] * STREAMS

    def read(server: WebServer, number: int) -> None:
        client = Client(server.port, f"user-{number}")
        with client.stream(client.begin(MANY_WORDS)) as sock, contextlib.suppress(OSError):
            while data := sock.recv(65536):
                counts[number] += data.count(b"event: token")

    with _server(queue, pinned) as server:
        for number in range(STREAMS):
            threading.Thread(target=read, args=(server, number), daemon=True).start()
            time.sleep(0.02)
        time.sleep(2)
        before, received = cpu_seconds(server.pids), sum(counts)
        time.sleep(WINDOW_SECONDS)
        used = cpu_seconds(server.pids) - before
        label = f"CPU per event in conversations, {STREAMS} streams × {RATE}/s, µs"
        return {label: used * 1e6 / (sum(counts) - received)}


def hub_lag(queue: str, pinned: Cores) -> dict[str, float]:
    """The longest time in which the gevent hub did not run, without the time the process was not scheduled."""
    with _server(queue, pinned, "tests.faults.ticking:app") as server, server.load(MANY_WORDS, STREAMS, 50) as load:
        load.wait_opened(30)
        time.sleep(2)
        server.get("/longest")  # Resets the maximum.
        time.sleep(WINDOW_SECONDS)
        return {"longest gap of the hub, ms": server.get("/longest") * 1000}


def main() -> None:
    compile_driver()
    raise_file_limit()
    scenarios = (replies, events, hub_lag, conversation_replies, conversation_events)
    pinned = cores(True)
    measure_interleaved([partial(scenario, pinned=pinned) for scenario in scenarios], QUEUES, rounds_argument(1, ROUNDS))


if __name__ == "__main__":
    main()
