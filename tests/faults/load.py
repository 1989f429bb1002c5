"""Many clients in one thread: hundreds of streams that are read, reset, closed and resumed, as sse.js does.

    with Clients(server.port) as clients:
        streams = [clients.send("hello") for _ in range(300)]
        assert clients.wait_for(lambda: all(stream.done for stream in streams))

A stream that ends without a terminal event reconnects with its last event id, after the delay that the server requested or
with exponential backoff and jitter. If its message id is not known yet, the message is sent again with the same
`Idempotency-Key`. On exit, the streams of each message are checked to have received the same end.
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

from tests.faults.consistency import assert_same_end
from tests.live import head, text_of
from tests.wire_server import RESET

LOWEST_ID = (0, 1)
TERMINAL = frozenset({"complete", "stopped", "error", "done", "failure"})
"""Terminal events of direct chat and of conversations."""
READ_BYTES = 65536
MIN_BACKOFF = 0.1
MAX_BACKOFF = 1.0


class Wire:
    """Parses the bytes of one response: head, chunks, events."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.retry: float | None = None
        """Seconds; sent by the server in milliseconds."""
        self.ended = False
        """Whether the last chunk was received."""
        self._bytes = b""
        self._text = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Returns the events completed by `data`, with their `id` if they have one."""
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
    """One request of a stream, and its outcome. Times are monotonic."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.wire = Wire()
        self.unsent = b""
        self.started = monotonic()
        self.ended = 0.0
        self.outcome = ""
        """clean, cut, refused or closed (by the client); "" while it is open."""


class Stream:
    """One message and its reply, over any number of connections."""

    def __init__(self, user: str, message: str, key: str, resumable: bool) -> None:
        self.user = user
        self.message = message
        self.key = key
        self.resumable = resumable
        self.message_id = ""
        self.last_id = ""
        self.events: list[dict[str, Any]] = []
        """Each with `at`, the wall-clock time it was received."""
        self.connections: list[Connection] = []
        self.disconnect_after_events: int | None = None
        """Closes the connection after this many events; 0: as soon as the stream is open."""
        self.disconnecting = False
        self.done = False
        """Whether it will not reconnect."""
        self._backoff = MIN_BACKOFF

    @property
    def runs(self) -> list[list[dict[str, Any]]]:
        """The events, split at each `restart`, which invalidates the events before it."""
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
        """The text since the last restart."""
        return text_of(self.runs[-1])

    @property
    def end(self) -> str:
        """The type of the terminal event, or the code of an error; "" if there is none yet."""
        last = self.events[-1] if self.events else {"type": ""}
        return str(last.get("code", last["type"])) if last["type"] in TERMINAL else ""

    def is_exact(self) -> bool:
        """Whether nothing is lost, repeated or reordered, and the only terminal event is the last one."""
        return self.text == self.expected_text and in_order(self.events) and self.end == "complete"

    @property
    def expected_text(self) -> str:
        """The bundled engine's reply to the message."""
        return self.message.split(" ", 2)[2] if self.message.startswith("/slow ") else self.message

    @property
    def numbered_events(self) -> list[dict[str, Any]]:
        """The events with an id, without `at`; those of the last log only."""
        events = [{name: value for name, value in event.items() if name != "at"} for event in self.events if "id" in event]
        restarts = [index for index, event in enumerate(events) if id_of(event) == LOWEST_ID]
        return events[restarts[-1] + 1 :] if restarts else events

    def request(self) -> bytes:
        """The bytes of the next request."""
        if self.message_id:
            after = [f"Last-Event-ID: {self.last_id}"] if self.last_id else []
            path = f"/api/chat/stream/{self.message_id}"
            return head("GET", path, "Accept: text/event-stream", *after, user=self.user)
        body = json.dumps({"message": self.message}).encode()
        headers = [f"Idempotency-Key: {self.key}", *(["X-Chat-Resume: 1"] if self.resumable else [])]
        return head("POST", "/api/chat/stream", *headers, body=body, user=self.user) + body

    def next_backoff(self) -> float:
        self._backoff = min(MAX_BACKOFF, self._backoff * 2)
        return self._backoff

    def reset_backoff(self) -> None:
        self._backoff = MIN_BACKOFF


def id_of(event: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(part) for part in event["id"].split("-"))


def in_order(events: list[dict[str, Any]]) -> bool:
    """Whether ids increase strictly and the only terminal event is the last one.

    After a Redis fail-over that lost events, a `restart` with the lowest id is followed by the log from its start.
    """
    ids = [id_of(event) for event in events if "id" in event]
    starts = [0, *(index for index, id_ in enumerate(ids) if id_ == LOWEST_ID), len(ids)]
    logs = [ids[start:end] for start, end in itertools.pairwise(starts)]
    ends = [event["type"] in TERMINAL for event in events]
    return all(log == sorted(set(log)) for log in logs) and ends.count(True) == 1 and ends[-1]


def all_done(streams: list[Stream]) -> Callable[[], bool]:
    return lambda: all(stream.done for stream in streams)


class Clients:
    """`port` is used by new connections. Tests change it when they replace a process, as a load balancer would."""

    def __init__(self, port: int, seed: int = 1) -> None:
        self.port = port
        self.streams: list[Stream] = []
        self.done = 0
        self.random = random.Random(seed)
        self._numbers = itertools.count()
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._calls: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="clients", daemon=True)

    def send(self, message: str, user: str = "", *, resumable: bool = True, disconnect_after: float | None = None) -> Stream:
        """Sends a message, by default of a new user. `disconnect_after`: seconds until it disconnects for good."""
        number = next(self._numbers)
        return self.open(
            Stream(user or f"user-{number}", message, f"key-{number}", resumable), disconnect_after=disconnect_after
        )

    def open(self, stream: Stream, *, disconnect_after: float | None = None) -> Stream:
        self.streams.append(stream)
        self._call(lambda: self._open(stream))
        if disconnect_after is not None:
            self._call(lambda: self._call_later(disconnect_after, lambda: self._disconnect(stream)))
        return stream

    def follow(self, original: Stream, after: str = "") -> Stream:
        """Opens another tab: follows the reply to the same message, from the start or after an event id."""
        stream = Stream(original.user, original.message, original.key, resumable=True)
        stream.message_id = original.message_id
        stream.last_id = after
        return self.open(stream)

    def resend(self, original: Stream, *, resumable: bool) -> Stream:
        """Sends the same message with the same idempotency key."""
        return self.open(Stream(original.user, original.message, original.key, resumable))

    def disconnect(self, stream: Stream) -> None:
        """Closes the tab."""
        self._call(lambda: self._disconnect(stream))

    def reset(self, stream: Stream) -> None:
        """Interrupts the connection; the stream reconnects."""
        self._call(lambda: self._reset(stream))

    @property
    def busy(self) -> int:
        return len(self.streams) - self.done

    def wait_for(self, condition: Callable[[], Any], seconds: float = 10.0) -> bool:
        """Returns whether `condition` became true in time. It is evaluated after each event."""
        with self._changed:
            is_met = bool(self._changed.wait_for(lambda: self._error or condition(), seconds))
        if self._error:
            raise self._error
        return is_met

    def __enter__(self) -> "Clients":
        self._wake_reader.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, None)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._shut_down()
        if kind is None:
            assert_same_end(self.streams)

    def _shut_down(self) -> None:
        self._stopping = True
        self._wake_writer.send(b"!")
        self._thread.join(10)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._wake_writer.close()
        self._selector.close()

    # The methods below run in the clients' own thread, but for `_call`.

    def _call(self, function: Callable[[], None]) -> None:
        self._calls.append(function)
        with contextlib.suppress(BlockingIOError):
            self._wake_writer.send(b"!")

    def _run(self) -> None:
        try:
            while not self._stopping:
                wait = self._timers[0][0] - monotonic() if self._timers else 1.0
                for key, _ in self._selector.select(max(0.0, wait)):
                    if key.data is None:
                        self._wake_reader.recv(4096)
                    else:
                        self._serve(*key.data)
                while self._calls:
                    self._calls.popleft()()
                while self._timers and self._timers[0][0] <= monotonic():
                    heapq.heappop(self._timers)[2]()
                with self._changed:
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _call_later(self, seconds: float, function: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (monotonic() + seconds, next(self._numbers), function))

    def _open(self, stream: Stream) -> None:
        if stream.done:
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
        if connection.outcome:
            return  # Closed earlier in this loop iteration.
        try:
            if connection.unsent:
                connection.sock.sendall(connection.unsent)  # Small enough for any socket buffer.
                connection.unsent = b""
                self._selector.modify(connection.sock, selectors.EVENT_READ, (stream, connection))
                return
            data = connection.sock.recv(READ_BYTES)
        except ConnectionRefusedError:
            self._close(stream, connection, "refused")
            return
        except OSError:
            data = b""
        self._receive(stream, connection, data)
        if connection.outcome:
            return  # It has disconnected.
        if connection.wire.ended or connection.wire.status not in {0, 200}:
            self._close(stream, connection, "clean")
        elif not data:
            self._close(stream, connection, "cut")

    def _receive(self, stream: Stream, connection: Connection, data: bytes) -> None:
        wire = connection.wire
        for event in wire.feed(data):
            event["at"] = time()
            stream.events.append(event)
            stream.last_id = event.get("id", stream.last_id)
            stream.reset_backoff()
        if wire.status == 200:
            stream.message_id = wire.headers.get("x-message-id", stream.message_id)
            if stream.disconnect_after_events is not None and len(stream.events) >= stream.disconnect_after_events:
                self._disconnect(stream)

    def _disconnect(self, stream: Stream) -> None:
        if stream.done:
            return
        stream.disconnecting = True
        connections = [connection for connection in stream.connections if not connection.outcome]
        for connection in connections:
            if self.random.random() < 0.5:  # A reset, as from a browser with unread data; otherwise a FIN.
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._close(stream, connection, "closed")
        if not connections:
            self._finish(stream)  # It was about to reconnect.

    def _reset(self, stream: Stream) -> None:
        for connection in [connection for connection in stream.connections if not connection.outcome]:
            self._close(stream, connection, "cut")

    def _close(self, stream: Stream, connection: Connection, outcome: str) -> None:
        connection.outcome = outcome
        connection.ended = monotonic()
        with contextlib.suppress(KeyError):
            self._selector.unregister(connection.sock)
        connection.sock.close()
        pause = self._reconnect_delay(stream, connection)
        if pause is None:
            self._finish(stream)
        else:
            self._call_later(pause, lambda: self._open(stream))

    def _finish(self, stream: Stream) -> None:
        if not stream.done:
            stream.done = True
            self.done += 1

    def _reconnect_delay(self, stream: Stream, connection: Connection) -> float | None:
        wire = connection.wire
        if stream.disconnecting or stream.end or not stream.resumable or wire.status not in {0, 200, 429, 503}:
            return None
        if "retry-after" in wire.headers:
            return int(wire.headers["retry-after"]) * self.random.uniform(1.0, 1.5)
        if wire.retry is not None and connection.outcome == "clean":
            return wire.retry
        return stream.next_backoff() * self.random.uniform(0.5, 1.5)
