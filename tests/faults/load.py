"""Many browsers in one thread: hundreds of streams that are read, cut, left and resumed, as our client library would.

    with Crowd(server.port) as crowd:
        streams = [crowd.say("hello") for _ in range(300)]
        assert crowd.wait_for(lambda: all(stream.over for stream in streams))

A stream that ended without a terminal event comes back by itself, with its last event id: after the pause that the server
asked for, else after a jittered one that doubles. Where nothing is known of its message yet, it is left again, with the
same `Idempotency-Key`. No two streams of one message may have been told different ends: that is judged when a crowd goes.
"""

import contextlib
import errno
import heapq
import itertools
import json
import random
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic, time
from typing import Any

from tests.faults.judge import assert_told_the_same_end
from tests.live import head, text_of
from tests.wire_server import RESET

TERMINAL = frozenset({"complete", "stopped", "error", "done", "failure"})
"""Of an answer in direct chat, and of a conversation's reply."""
READ_BYTES = 65536
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 1.0


class Wire:
    """The bytes of one answer: its head, then its chunks, then its events."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.retry: float | None = None
        """Seconds, as the server asked for in milliseconds."""
        self.ended = False
        """By its last chunk: not cut."""
        self._bytes = b""
        self._text = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The events that are complete now, each with its `id` where it has one."""
        self._bytes += data
        if not self.status and not self._read_head():
            return []
        if self.headers.get("transfer-encoding") == "chunked":
            self._read_chunks()
        *frames, self._text = self._text.split(b"\n\n")
        return [event for frame in frames if (event := self._event(frame.decode()))]

    def _read_head(self) -> bool:
        head, end, rest = self._bytes.partition(b"\r\n\r\n")
        if end:
            first, *lines = head.decode("latin-1").split("\r\n")
            self.status = int(first.split()[1])
            self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            self._bytes = rest
            self.ended = self.status == 204
        return bool(end)

    def _read_chunks(self) -> None:
        while not self.ended:
            size, end, rest = self._bytes.partition(b"\r\n")
            if not end or len(rest) < int(size, 16) + 2:
                return
            self.ended = int(size, 16) == 0
            self._text += rest[: int(size, 16)]
            self._bytes = rest[int(size, 16) + 2 :]

    def _event(self, frame: str) -> dict[str, Any] | None:
        fields = dict(line.split(": ", 1) for line in frame.split("\n") if not line.startswith(":"))
        if "retry" in fields:
            self.retry = int(fields["retry"]) / 1000
        if "data" not in fields:
            return None
        named = {"type": fields["event"]} if "event" in fields else {}
        return json.loads(fields["data"]) | named | ({"id": fields["id"]} if "id" in fields else {})


class Connection:
    """One request of a stream's, and how it went. Moments are monotonic."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.wire = Wire()
        self.unsent = b""
        self.began = monotonic()
        self.ended = 0.0
        self.how = ""
        """clean, cut, refused (nobody listened) or left (by us); "" while it is open."""


class Stream:
    """One message and its answer, over as many connections as it takes."""

    def __init__(self, user: str, message: str, key: str, comes_back: bool) -> None:
        self.user = user
        self.message = message
        self.key = key
        self.comes_back = comes_back
        self.message_id = ""
        self.last_id = ""
        self.events: list[dict[str, Any]] = []
        """Each with `at`, the wall clock's time of its arrival."""
        self.connections: list[Connection] = []
        self.leave_at: int | None = None
        """After so many events; 0: as soon as its stream is open."""
        self.leaving = False
        self.over = False
        """Whether it will not come back any more."""
        self._pause = FIRST_PAUSE

    @property
    def runs(self) -> list[list[dict[str, Any]]]:
        """Its events, parted where a `restart` took back what came before."""
        runs: list[list[dict[str, Any]]] = [[]]
        for event in self.events:
            if event["type"] == "restart":
                runs.append([])
            else:
                runs[-1].append(event)
        return runs

    @property
    def restarts(self) -> int:
        return len(self.runs) - 1

    @property
    def text(self) -> str:
        """What counts of it."""
        return text_of(self.runs[-1])

    @property
    def end(self) -> str:
        """The type of its terminal event, an error's code; "" when it has none."""
        last = self.events[-1] if self.events else {"type": ""}
        return str(last.get("code", last["type"])) if last["type"] in TERMINAL else ""

    def is_exact(self) -> bool:
        """Nothing lost, doubled or reordered, and one end, last."""
        return self.text == self.text_wanted and in_order(self.events) and self.end == "complete"

    @property
    def text_wanted(self) -> str:
        """What the bundled engine says to its message."""
        return self.message.split(" ", 2)[2] if self.message.startswith("/slow ") else self.message

    @property
    def said(self) -> list[dict[str, Any]]:
        """Its numbered events, whenever they came."""
        return [{name: value for name, value in event.items() if name != "at"} for event in self.events if "id" in event]

    def request(self) -> bytes:
        """For its next connection."""
        if self.message_id:
            after = [f"Last-Event-ID: {self.last_id}"] if self.last_id else []
            path = f"/api/chat/stream/{self.message_id}"
            return head("GET", path, "Accept: text/event-stream", *after, user=self.user)
        body = json.dumps({"message": self.message}).encode()
        wishes = [f"Idempotency-Key: {self.key}", *(["X-Chat-Resume: 1"] if self.comes_back else [])]
        return head("POST", "/api/chat/stream", *wishes, body=body, user=self.user) + body

    def next_pause(self) -> float:
        self._pause = min(LONGEST_PAUSE, self._pause * 2)
        return self._pause

    def calm_down(self) -> None:
        self._pause = FIRST_PAUSE


def in_order(events: list[dict[str, Any]]) -> bool:
    """No event twice, none before another that is older, and one end, last."""
    ids = [tuple(int(part) for part in event["id"].split("-")) for event in events if "id" in event]
    ends = [event["type"] in TERMINAL for event in events]
    return ids == sorted(set(ids)) and ends.count(True) == 1 and ends[-1]


def all_over(streams: list[Stream]) -> Callable[[], bool]:
    return lambda: all(stream.over for stream in streams)


class Crowd:
    """`port`: where connections are made from now on; a balancer's work, when a process is replaced."""

    def __init__(self, port: int, seed: int = 1) -> None:
        self.port = port
        self.streams: list[Stream] = []
        self.over = 0
        self.random = random.Random(seed)
        self._numbers = itertools.count()
        self._selector = selectors.DefaultSelector()
        self._bell, self._ringer = socket.socketpair()
        self._told: deque[Callable[[], None]] = deque()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="crowd", daemon=True)

    def say(self, message: str, user: str = "", *, comes_back: bool = True, leave_after: float | None = None) -> Stream:
        """Each stream is a user of its own, unless one is named. `leave_after` so many seconds, not to come back."""
        number = next(self._numbers)
        return self.open(Stream(user or f"user-{number}", message, f"key-{number}", comes_back), leave_after=leave_after)

    def open(self, stream: Stream, *, leave_after: float | None = None) -> Stream:
        self.streams.append(stream)
        self._tell(lambda: self._open(stream))
        if leave_after is not None:
            self._tell(lambda: self._after(leave_after, lambda: self._leave(stream)))
        return stream

    def follow(self, like: Stream, after: str = "") -> Stream:
        """Another tab: the answer to the same message, from the start or after an event id."""
        stream = Stream(like.user, like.message, like.key, comes_back=True)
        stream.message_id = like.message_id
        stream.last_id = after
        return self.open(stream)

    def say_again(self, like: Stream, *, comes_back: bool) -> Stream:
        """The same message under the same key: its answer is followed."""
        return self.open(Stream(like.user, like.message, like.key, comes_back))

    def leave(self, stream: Stream) -> None:
        """Its tab is closed."""
        self._tell(lambda: self._leave(stream))

    def drop(self, stream: Stream) -> None:
        """Its line breaks, whatever it is doing, and it comes back."""
        self._tell(lambda: self._cut(stream))

    @property
    def busy(self) -> int:
        return len(self.streams) - self.over

    def wait_for(self, condition: Callable[[], Any], seconds: float = 10.0) -> bool:
        """Whether `condition` came true in time; looked at whenever something happened."""
        with self._changed:
            met = bool(self._changed.wait_for(lambda: self._error or condition(), seconds))
        if self._error:
            raise self._error
        return met

    def __enter__(self) -> "Crowd":
        self._bell.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ, None)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop()
        if kind is None:
            assert_told_the_same_end(self.streams)

    def _stop(self) -> None:
        self._stopping = True
        self._ringer.send(b"!")
        self._thread.join(10)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._ringer.close()
        self._selector.close()

    # What follows runs in the crowd's own thread.

    def _tell(self, do: Callable[[], None]) -> None:
        self._told.append(do)
        with contextlib.suppress(BlockingIOError):
            self._ringer.send(b"!")

    def _run(self) -> None:
        try:
            while not self._stopping:
                wait = self._later[0][0] - monotonic() if self._later else 1.0
                for key, _ in self._selector.select(max(0.0, wait)):
                    if key.data is None:
                        self._bell.recv(4096)
                    else:
                        self._serve(*key.data)
                while self._told:
                    self._told.popleft()()
                while self._later and self._later[0][0] <= monotonic():
                    heapq.heappop(self._later)[2]()
                with self._changed:
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _after(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._later, (monotonic() + seconds, next(self._numbers), do))

    def _open(self, stream: Stream) -> None:
        if stream.over:
            return
        sock = socket.socket()
        sock.setblocking(False)
        connection = Connection(sock)
        connection.unsent = stream.request()
        stream.connections.append(connection)
        if sock.connect_ex(("127.0.0.1", self.port)) in {0, errno.EINPROGRESS}:
            self._selector.register(sock, selectors.EVENT_WRITE, (stream, connection))
        else:
            self._close(stream, connection, "refused")

    def _serve(self, stream: Stream, connection: Connection) -> None:
        if connection.how:
            return  # Closed by what was served just before.
        try:
            if connection.unsent:
                connection.sock.sendall(connection.unsent)  # Small: it fits into any buffer.
                connection.unsent = b""
                self._selector.modify(connection.sock, selectors.EVENT_READ, (stream, connection))
                return
            data = connection.sock.recv(READ_BYTES)
        except ConnectionRefusedError:
            self._close(stream, connection, "refused")
            return
        except OSError:
            data = b""
        self._take(stream, connection, data)
        if connection.how:
            return  # It has seen enough.
        if connection.wire.ended or connection.wire.status not in {0, 200}:
            self._close(stream, connection, "clean")
        elif not data:
            self._close(stream, connection, "cut")

    def _take(self, stream: Stream, connection: Connection, data: bytes) -> None:
        wire = connection.wire
        for event in wire.feed(data):
            event["at"] = time()
            stream.events.append(event)
            stream.last_id = event.get("id", stream.last_id)
            stream.calm_down()
        if wire.status == 200:
            stream.message_id = wire.headers.get("x-message-id", stream.message_id)
            if stream.leave_at is not None and len(stream.events) >= stream.leave_at:
                self._leave(stream)

    def _leave(self, stream: Stream) -> None:
        if stream.over:
            return
        stream.leaving = True
        open_ones = [connection for connection in stream.connections if not connection.how]
        for connection in open_ones:
            if self.random.random() < 0.5:  # A reset, as from a browser with something unread; else a FIN.
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._close(stream, connection, "left")
        if not open_ones:
            self._finish(stream)  # It was about to come back.

    def _cut(self, stream: Stream) -> None:
        for connection in [connection for connection in stream.connections if not connection.how]:
            self._close(stream, connection, "cut")

    def _close(self, stream: Stream, connection: Connection, how: str) -> None:
        connection.how = how
        connection.ended = monotonic()
        with contextlib.suppress(KeyError):
            self._selector.unregister(connection.sock)
        connection.sock.close()
        pause = self._pause_before_coming_back(stream, connection)
        if pause is None:
            self._finish(stream)
        else:
            self._after(pause, lambda: self._open(stream))

    def _finish(self, stream: Stream) -> None:
        if not stream.over:
            stream.over = True
            self.over += 1

    def _pause_before_coming_back(self, stream: Stream, connection: Connection) -> float | None:
        wire = connection.wire
        if stream.leaving or stream.end or not stream.comes_back or wire.status not in {0, 200, 429, 503}:
            return None
        if "retry-after" in wire.headers:
            return int(wire.headers["retry-after"]) * self.random.uniform(1.0, 1.5)
        if wire.retry is not None and connection.how == "clean":
            return wire.retry
        return stream.next_pause() * self.random.uniform(0.5, 1.5)
