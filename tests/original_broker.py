"""A stand-in for the broker that existed before ours, with its faults, and for its engine's history.

It sends CRLF and no ids, and starts to work when a stream is opened. It runs a user's messages in the order in which their
streams were opened, one at a time, under a lock that stays locked when a stream is closed early. A message that waits for the
lock for too long is given up.
"""

import contextlib
import json
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Send = Callable[[str, str], None]
"""Sends an event: its type and data."""
NO_SLOT = "Timed out waiting for processing slot"


class OriginalBroker:
    def __init__(
        self,
        word_seconds: float = 0.005,
        *,
        slot_seconds: float = 120.0,
        lock_seconds: float = 120.0,
        reply: Callable[[str], Iterator[str]] | None = None,
    ) -> None:
        """`slot_seconds`: how long a message waits for its user's lock; `lock_seconds`: when an abandoned lock expires.

        `reply`: the pieces of the reply to a text; by default its words, `word_seconds` apart.
        """
        self.word_seconds = word_seconds
        self._reply = reply
        self.slot_seconds = slot_seconds
        self.lock_seconds = lock_seconds
        self.messages: dict[str, tuple[str, str]] = {}
        """User and text, by message id."""
        self.received: list[str] = []
        """The texts received, in order."""
        self.opened: list[str] = []
        """The message id of each stream."""
        self.completed: list[str] = []
        """The texts replied to, in order of completion."""
        self.given_up: list[str] = []
        self.max_concurrent: Counter[str] = Counter()
        """The maximum of concurrently open streams, by user."""
        self.stray_streams = 0
        """The next streams to be opened in another process, which sends `done` and nothing of the reply."""
        self.history: dict[str, list[dict[str, Any]]] = {}
        """The engine's turns, by user."""
        self.stores_history = True
        self._killed = False
        self._open: Counter[str] = Counter()
        self._connections: list[socket.socket] = []
        self._locks: dict[str, tuple[str, float]] = {}
        """By user: the message that holds the lock, and when it expires."""
        self._condition = threading.Condition()
        self._server = _Server(self, 0)
        self.port = self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def reset(self) -> None:
        """Waits for open streams and forgets everything."""
        deadline = time.monotonic() + 10
        while any(self._open.values()) and time.monotonic() < deadline:
            time.sleep(0.01)
        with self._condition:
            for state in (self.messages, self.received, self.opened, self.completed, self.given_up, self.history, self._locks):
                state.clear()
            self.max_concurrent.clear()
            self._open.clear()
            self._connections.clear()

    def hang_up(self) -> None:
        """Cuts all streams."""
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def kill(self) -> None:
        """Stops serving; messages and locks are lost."""
        self._server.shutdown()
        self._server.server_close()
        self.hang_up()
        with self._condition:
            self._killed = True
            self._locks.clear()
            self.messages.clear()

    def restart(self) -> None:
        """Serves again after `kill`, on the same port."""
        self._server = _Server(self, self.port)
        self._killed = False
        self._serve()

    def hold_lock(self, user_id: str, seconds: float) -> None:
        """Locks as a process that died would."""
        with self._condition:
            self._locks[user_id] = ("somebody", time.monotonic() + seconds)

    def queue_of(self, user_id: str) -> dict[str, Any]:
        with self._condition:
            running, deadline = self._locks.get(user_id, (None, 0.0))
            running = running if deadline > time.monotonic() else None
            waiting = self._open[user_id] - (running is not None)
        state = {"queue_length": max(0, waiting), "is_processing": running is not None, "current_message_id": running}
        return {"user_id": user_id} | state

    def receive(self, content: dict[str, Any]) -> dict[str, Any]:
        message_id = str(uuid.uuid4())
        self.messages[message_id] = (content["user_id"], content["message"])
        self.received.append(content["message"])
        return {"status": "queued", "message_id": message_id, "queue_position": 1}

    def stream(self, message_id: str, send: Send, connection: socket.socket) -> None:
        self._connections.append(connection)
        server = self._server
        user, text = self.messages.get(message_id, ("", ""))
        self.opened.append(message_id)
        with self._condition:
            self._open[user] += 1
            self.max_concurrent[user] = max(self.max_concurrent[user], self._open[user])
            stray, self.stray_streams = self.stray_streams > 0, max(0, self.stray_streams - 1)
        try:
            send("queued", json.dumps({"message_id": message_id}))
            if not self._lock(user, message_id):
                send("error", json.dumps({"error": NO_SLOT}))
                return
            self._run(message_id, text, (lambda *_: None) if stray else send)
            self._unlock(user)
            send("done", json.dumps({"message_id": message_id}))
        except OSError:
            self.given_up.append(text)
            with self._condition:
                if server is self._server and not self._killed:
                    self._locks[user] = (message_id, time.monotonic() + self.lock_seconds)
            raise
        finally:
            with self._condition:
                self._open[user] -= 1

    def _lock(self, user: str, message_id: str) -> bool:
        """False after `slot_seconds`."""

        def is_free() -> bool:
            holder, expiry = self._locks.get(user, ("", 0.0))
            return holder in {"", message_id} or expiry < time.monotonic()

        deadline = time.monotonic() + self.slot_seconds
        with self._condition:
            while not is_free():
                if time.monotonic() >= deadline:
                    return False
                self._condition.wait(0.02)
            self._locks[user] = (message_id, time.monotonic() + 600)
            return True

    def _unlock(self, user: str) -> None:
        with self._condition:
            self._locks.pop(user, None)
            self._condition.notify_all()

    def _run(self, message_id: str, text: str, send: Send) -> None:
        user, _ = self.messages[message_id]
        send("processing", "")
        pieces = []
        for piece in self._reply(text) if self._reply else self._words(text):
            pieces.append(piece)
            send("message", json.dumps({"type": "progress", "text": piece}, ensure_ascii=False))
        reply = "".join(pieces) if self._reply else text
        self.completed.append(text)
        now = datetime.now(UTC).isoformat()
        turn = {"user_message": text, "assistant_response": reply, "timestamp": now, "created_at": now}
        if self.stores_history:
            self.history.setdefault(user, []).append(turn)
        response = {"responses": [reply], "response_language": "en", "voice_audio_base64": None}
        send("message", json.dumps({"type": "complete", "response": response}, ensure_ascii=False))

    def _words(self, text: str) -> Iterator[str]:
        for word in text.split(" "):
            time.sleep(self.word_seconds)
            yield word + " "

    def _serve(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> "OriginalBroker":
        self._serve()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True

    def __init__(self, broker: OriginalBroker, port: int) -> None:
        self.broker = broker
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, *_: object) -> None:
        """Prints nothing: tests disconnect on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._respond(200, self.server.broker.receive(content))

    def do_DELETE(self) -> None:
        self._respond(405, {"detail": "Method Not Allowed"})

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        names = [unquote(name) for name in parts.path.split("/")[1:]]
        if names[:3] == ["api", "v1", "queue"] and len(names) == 4:
            self._respond(200, self.server.broker.queue_of(names[3]))
        elif names[-1] == "history":
            turns = self.server.broker.history.get(names[-2], [])
            offset, limit = int(query["offset"]), int(query["limit"])
            page = {"entries": turns[offset : offset + limit], "total_count": len(turns)}
            self._respond(200, page | {"user_id": names[-2], "limit": limit, "offset": offset})
        elif names == ["api", "v1", "stream"]:
            self._stream(query["message_id"])
        elif names == ["health"]:
            self._respond(200, {"status": "healthy"})
        else:
            self._respond(404, {"detail": "Not Found"})

    def _stream(self, message_id: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.server.broker.stream(message_id, self._send_event, self.connection)
        self.wfile.write(b"0\r\n\r\n")

    def _send_event(self, event: str, data: str) -> None:
        frame = f"event: {event}\r\ndata: {data}\r\n\r\n".encode()
        self.wfile.write(f"{len(frame):x}\r\n".encode() + frame + b"\r\n")

    def _respond(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
