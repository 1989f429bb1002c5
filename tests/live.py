"""Servers as processes, and browsers as sockets: what tests use to see the program as its users do."""

import atexit
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import Flask

from bff import Settings, create_app
from bff.config.environment import load_settings
from bff.db.database import Database
from tests import prefork

ROOT = Path(__file__).parent.parent
PROXY_SECRET = "proxy-secret-of-thirty-two-bytes!"
BROKER_KEY = "broker-key-of-more-than-thirty-two-bytes"
INHERITED = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
"""What a process is told of the machine it runs on."""
DEADLINE = 20.0
"""Seconds, for what takes a moment even on a busy machine."""

FOLDER = Path(tempfile.mkdtemp(prefix="chat-tests-"))
"""Of this run, and gone after it."""
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)

BASE_ENVIRONMENT = {
    "APP_ENV": "development",
    "AUTH_MODE": "proxy",
    "AUTH_PROXY_SECRET": PROXY_SECRET,
    "SECRET_KEY": "k" * 32,
    "DATABASE_URL": f"sqlite:///{FOLDER}/chat.db",
    "QUEUE_FILE": "off",
    "ECHO_WORD_SECONDS": "0.002",
    "LOG_FORMAT": "json",
    "TMPDIR": str(FOLDER),
}


@cache
def migrated_database() -> Path:
    """An SQLite file with our tables, to be copied: migrating a file takes 0.15 s of CPU."""
    path = FOLDER / "migrated.db"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    database.close()
    return path


def create_tables(url: str) -> None:
    """Gives a new SQLite database its tables."""
    path = Path(url.removeprefix("sqlite:///"))
    if path.is_absolute() and path.parent.is_dir() and not path.exists():
        shutil.copyfile(migrated_database(), path)


def new_settings(**settings: str) -> Settings:
    """For an app in this process, whose database has its tables."""
    environment = BASE_ENVIRONMENT | settings
    if environment["APP_ENV"] == "development":  # Otherwise the app would not migrate it either.
        create_tables(environment["DATABASE_URL"])
    return load_settings(environment)


def new_app(**settings: str) -> Flask:
    return create_app(new_settings(**settings))


def who(user: str) -> dict[str, str]:
    """The proxy mode's headers."""
    return {"X-Proxy-Secret": PROXY_SECRET, "X-Forwarded-User": user}


ADA = who("ada")


def head(method: str, path: str, *fields: str, body: bytes | None = None, user: str = "ada") -> bytes:
    """A request as bytes; of `body`, which is JSON, only what a head says of it."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        *(f"{name}: {value}" for name, value in who(user).items()),
        *fields,
    ]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode()


def eventually(condition: Callable[[], Any], seconds: float = 5.0) -> Any:
    """What `condition` gives once it is true, or in the end: for what another process does and tells nobody."""
    start = time.monotonic()
    while not (result := condition()) and (elapsed := time.monotonic() - start) < seconds:
        time.sleep(min(max(elapsed / 10, 0.005), 0.1))  # More rarely as time passes, as looking takes CPU time too.
    return result


def free_port() -> int:
    """A port that nobody else is given until this process ends, as an open socket that does not listen stays bound to it.

    Only a server that sets SO_REUSEADDR can listen there, as all of the tests' servers do; a connection is refused until then.
    """
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    port = int(sock.getsockname()[1])
    sock.detach()  # Its descriptor stays open.
    return port


def descriptors_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def memory_of(pid: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Server:
    """A server process: gunicorn or `flask run` with the app, the broker on its own, or a worker that only answers."""

    def __init__(self, kind: str, log: Path, port: int | None = None, **settings: str) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        environment = {**INHERITED, **BASE_ENVIRONMENT, "PORT": str(self.port), **settings}
        if environment["APP_ENV"] == "development":
            create_tables(environment["DATABASE_URL"])
        command = {
            "gunicorn": ["gunicorn", "app:app"],
            "flask": ["flask", "run", "--port", str(self.port)],
            "broker": ["gunicorn", "bff.broker:create_broker()"],
            "worker": ["bff.broker"],
            "counted": ["gunicorn", "tests.faults.counted:app"],
            "counted-flask": ["flask", "--app", "tests.faults.counted", "run", "--port", str(self.port)],
            "slow disk": ["gunicorn", "tests.faults.slow_disk:app"],
            "ticking": ["gunicorn", "tests.faults.ticking:app"],
            "scaled": ["gunicorn", "tests.faults.scaled:app"],
            "scaled flask": ["flask", "--app", "tests.faults.scaled:app", "run", "--port", str(self.port)],
        }[kind]
        with log.open("ab") as output:
            world = "threads" if "flask" in kind else "gevent"
            self.process = prefork.Process(world, command, environment, output.fileno())
        self.kind = kind

    def wait_until_ready(self) -> "Server":
        if not eventually(self._answers, 20):
            self.stop(signal.SIGKILL)
            raise AssertionError(f"no answer from the server:\n{self.log}")
        return self

    def _answers(self) -> bool:
        if self.kind == "worker":
            return "answering" in self.log  # It listens nowhere.
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            with contextlib.closing(connection):
                connection.request("GET", "/health" if self.kind == "broker" else "/healthz")
                return connection.getresponse().status == 200
        return False

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    @property
    def ended(self) -> list[str]:
        """How each stream ended, and each recording."""
        return [line["ended"] for line in self.log_lines if "ended" in line]

    @property
    def children(self) -> list[int]:
        """The processes of its workers."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    @property
    def worker_pid(self) -> int:
        """The process that serves: gunicorn's only worker, or the process itself."""
        return (self.children or [self.process.pid])[0]

    def descriptors(self) -> int:
        return descriptors_of(self.worker_pid)

    def threads(self) -> int:
        return threads_of(self.worker_pid)

    def memory(self) -> int:
        return memory_of(self.worker_pid)

    def kill(self, number: int = signal.SIGTERM) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def freeze(self) -> None:
        """Stops the process until SIGCONT. A thread that runs on another core stops a moment after the signal was sent."""
        self.kill(signal.SIGSTOP)
        states = Path(f"/proc/{self.process.pid}/task")
        assert eventually(lambda: all(") T" in path.read_text() for path in states.glob("*/stat"))), "it runs on"

    def crash(self) -> None:
        """Master and workers die at once, as when a machine goes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(5)

    def stop(self, number: int = signal.SIGINT, seconds: float = 15) -> int:
        """Its exit status; whatever does not stop in time is killed, children included."""
        self.kill(number)
        try:
            return self.process.wait(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(5)


class Browser:
    """One user's browser, by the proxy mode's headers."""

    def __init__(self, server: Server | str, user: str = "ada") -> None:
        self.url = server if isinstance(server, str) else server.url
        self.headers = who(user)

    def request(self, method: str, path: str, content: Any = None, **headers: str) -> "Reply":
        """Underscores in header names stand for dashes. `content`: bytes as they are, anything else as JSON."""
        fields = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        body = content if isinstance(content, bytes) or content is None else json.dumps(content).encode()
        if body is not None:
            fields.setdefault("Content-Type", "application/json")
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        connection.request(method, path, body, fields)
        return Reply(connection, connection.getresponse())

    def say(self, message: str, **headers: str) -> "Reply":
        return self.request("POST", "/api/chat/stream", {"message": message}, **headers)

    def follow(self, message_id: str, after: str = "", **headers: str) -> "Reply":
        """As `EventSource` does: from the start, or after an event id."""
        fields = {"Last-Event-ID": after} if after else {}
        return self.request("GET", f"/api/chat/stream/{message_id}", **fields, **headers)

    def stop(self, message_id: str) -> "Reply":
        return self.request("POST", f"/api/chat/stream/{message_id}/stop")

    def active(self) -> list[dict[str, Any]]:
        return list(self.request("GET", "/api/chat/active").json()["messages"])


class Reply:
    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._response = response
        self._socket = response.fp.raw._sock if response.fp else None  # To look at it, and to hang up rudely.
        self.status = response.status
        self.headers = response.headers

    @property
    def message_id(self) -> str:
        return self.headers["X-Message-ID"]

    def json(self) -> Any:
        with self:
            return json.loads(self._response.read())

    def read(self) -> bytes:
        with self:
            return self._response.read()

    def frames(self) -> Iterator[str]:
        """Each frame as text, without its blank line. Raises IncompleteRead, or an OSError, when the stream is cut."""
        lines: list[str] = []
        for line in iter(self._response.readline, b""):
            text = line.decode()
            if text == "\n":
                yield "".join(lines)
                lines = []
            else:
                lines.append(text)
        assert not lines, f"half a frame at the end: {lines}"
        if self._response.chunked and self._response.chunk_left is not None:  # What is left after a clean end is None.
            raise http.client.IncompleteRead(b"")

    def events(self) -> Iterator[dict[str, Any]]:
        """The JSON of each event, with its SSE id as `id` where it has one."""
        for frame in self.frames():
            fields = dict(line.split(": ", 1) for line in frame.strip("\n").split("\n") if not line.startswith(":"))
            if "data" in fields:
                yield json.loads(fields["data"]) | ({"id": fields["id"]} if "id" in fields else {})

    def leave(self) -> None:
        """Hang up, as a closed tab does."""
        assert self._socket is not None
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self.close()

    def close(self) -> None:
        self._response.close()
        self._connection.close()

    def __enter__(self) -> "Reply":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["text"] for event in events if event["type"] == "progress")


def take(reply: Reply, most: int | None = None) -> list[str]:
    """The next frames, as whoever follows twice gets them: without `retry`. Then the browser hangs up."""
    frames = [
        "".join(line for line in frame.splitlines(True) if not line.startswith("retry:"))
        for frame in islice(reply.frames(), most)
    ]
    reply.leave()
    return frames


def status_of(reply: Reply) -> int:
    """Where nothing else of it matters."""
    with reply:
        return reply.status


def id_of(frame: str) -> str:
    return next((line.removeprefix("id: ") for line in frame.split("\n") if line.startswith("id: ")), "")


def content_of(frame: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(frame.split("\n")[0].removeprefix("data: "))
    return content


def last_of(reply: Reply) -> dict[str, Any]:
    """The content of its last frame."""
    return content_of(take(reply)[-1])


def in_parallel(count: int, work: Callable[[int], Any], seconds: float = 60) -> list[Any]:
    """What `work(number)` gives for each number, all at once in threads. An error in one is the caller's."""
    results: list[Any] = [None] * count
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            results[number] = work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads), "some are not done yet"
    return results
