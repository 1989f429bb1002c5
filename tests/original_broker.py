"""A stand-in of the broker that existed before ours: CRLF, no ids, and work that begins when the stream opens.

It answers a user's messages in the order in which their streams open, one at a time.
"""

import contextlib
import json
import socket
import threading
import time
import uuid
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class OriginalBroker:
    def __init__(self, word_seconds: float = 0.005) -> None:
        self.word_seconds = word_seconds
        self.messages: dict[str, tuple[str, str]] = {}
        self.opened: list[str] = []
        self.answered: list[str] = []
        """Texts, in the order in which their answers were ended."""
        self.given_up: list[str] = []
        self._streams: list[socket.socket] = []
        self._turns: dict[str, threading.Lock] = defaultdict(threading.Lock)
        broker = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                message_id = str(uuid.uuid4())
                broker.messages[message_id] = (content["user_id"], content["message"])
                self._reply(200, {"status": "queued", "message_id": message_id, "queue_position": 1})

            def do_DELETE(self) -> None:
                self._reply(405, {"detail": "Method Not Allowed"})

            def _reply(self, status: int, content: dict[str, object]) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                if self.path.startswith("/api/v1/queue/"):
                    self._reply(200, {"user_id": "", "queue_length": 0, "is_processing": False, "current_message_id": None})
                    return
                query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream; charset=utf-8")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                broker._streams.append(self.connection)
                broker._answer(query["message_id"], self._say)
                self.wfile.write(b"0\r\n\r\n")

            def _say(self, event: str, data: str) -> None:
                frame = f"event: {event}\r\ndata: {data}\r\n\r\n".encode()
                self.wfile.write(f"{len(frame):x}\r\n".encode() + frame + b"\r\n")

        class Quiet(ThreadingHTTPServer):
            request_queue_size = 512

            def handle_error(self, *_: object) -> None:
                """A reader that hangs up is what tests do."""

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def hang_up(self) -> None:
        """Cuts every stream where it is."""
        for connection in list(self._streams):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, message_id: str, say) -> None:
        user, text = self.messages[message_id]
        self.opened.append(message_id)
        say("queued", json.dumps({"message_id": message_id}))
        with self._turns[user]:
            try:
                say("processing", "")
                for word in text.split(" "):
                    time.sleep(self.word_seconds)
                    say("message", json.dumps({"type": "progress", "text": word + " "}, ensure_ascii=False))
                response = {"responses": [text], "response_language": "en", "voice_audio_base64": None}
                say("message", json.dumps({"type": "complete", "response": response}, ensure_ascii=False))
                say("done", json.dumps({"message_id": message_id}))
            except OSError:
                self.given_up.append(text)
                raise
            self.answered.append(text)

    def __enter__(self) -> "OriginalBroker":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
