"""A stand-in for the backend-for-frontend that existed before ours: a relay without ids in front of its broker.

Its faults were measured: replies cannot be followed, resumed or stopped, a reader that leaves loses its reply, messages are
not checked, and errors have no common shape.
"""

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlencode

from tests.original_broker import OriginalBroker

STATUS = {"queued": "Message queued...", "processing": "Processing..."}
PAGE = b"<!DOCTYPE html><title>404: This page could not be found</title>"


class OriginalRelay:
    def __init__(self, broker: OriginalBroker) -> None:
        self._server = _Server(broker.port)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "OriginalRelay":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def __init__(self, broker_port: int) -> None:
        self.broker_port = broker_port
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, *_: object) -> None:
        """Prints nothing: clients disconnect on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        if self.path.partition("?")[0] != "/api/chat/stream":
            self._respond(404, PAGE, "text/html")
            return
        try:
            content = json.loads(self.rfile.read(min(int(self.headers["Content-Length"]), 1 << 16)))
            message_id = self._enqueue(content["message"])
        except (ValueError, KeyError, TypeError):
            self._respond(500, b"Internal Server Error", "text/plain")
            return
        self.send_response(200)
        for name, value in (("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache")):
            self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for data in self._events(message_id):
            frame = f"data: {data}\n\n".encode()
            self.wfile.write(f"{len(frame):x}\r\n".encode() + frame + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    @property
    def _user(self) -> str:
        return self.headers.get("X-Forwarded-User", "nobody")

    def _enqueue(self, message: object) -> str:
        body = json.dumps({"user_id": self._user, "message": message})
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.server.broker_port)) as connection:
            connection.request("POST", "/api/v1/message", body)
            return str(json.loads(connection.getresponse().read())["message_id"])

    def _events(self, message_id: str) -> Iterator[str]:
        """The data of each event, translated."""
        query = urlencode({"user_id": self._user, "message_id": message_id})
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.server.broker_port)) as connection:
            connection.request("GET", f"/api/v1/stream?{query}")
            name = ""
            for line in connection.getresponse():
                field, _, value = line.decode().rstrip("\r\n").partition(": ")
                name = value if field == "event" else name
                if field == "data" and name in STATUS:
                    yield json.dumps({"type": "status", "message": STATUS[name]})
                elif field == "data" and name == "message":
                    yield value

    def do_GET(self) -> None:
        self._respond(404, PAGE, "text/html")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.do_GET()

    def do_OPTIONS(self) -> None:
        self.do_GET()

    def _respond(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)
