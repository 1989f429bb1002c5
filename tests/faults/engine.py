"""A fake engine that counts its calls; the words of a reply contain the number of the call."""

import contextlib
import json
import re
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def question(name: str, words: int, interval: float = 0.0, delay: float = 0.0) -> str:
    """A message that makes the engine reply with `words` words, `interval` seconds apart, after `delay` seconds."""
    return f"{name} {words} {interval} {delay}"


def reply_words(message: str, call_number: int) -> list[str]:
    """The words of the reply to a question; `call_number` starts at 1."""
    name, words, _, _ = message.split()
    return [f"{name}:{call_number}.{number} " for number in range(int(words))]


def call_numbers(text: str) -> set[int]:
    """The numbers of the calls that produced these words."""
    return {int(number) for number in re.findall(r":([0-9]+)\.", text)}


class Engine:
    """Serves the engine's HTTP contract inside `with`."""

    def __init__(self) -> None:
        self.calls: defaultdict[str, int] = defaultdict(int)
        """Number of calls by message."""
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with contextlib.suppress(OSError):
                    engine._reply(self, body["message"])
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Engine":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="engine", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def _reply(self, handler: BaseHTTPRequestHandler, message: str) -> None:
        with self._lock:
            self.calls[message] += 1
            words = reply_words(message, self.calls[message])
        _, _, interval, delay = message.split()
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        self._stopping.wait(float(delay))
        for word in words:
            _send_event(handler, {"type": "progress", "text": word})
            self._stopping.wait(float(interval))
        response = {"responses": ["".join(words)], "response_language": "en", "voice_audio_base64": None}
        _send_event(handler, {"type": "complete", "response": response})
        handler.wfile.write(b"0\r\n\r\n")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256


def _send_event(handler: BaseHTTPRequestHandler, content: dict[str, Any]) -> None:
    event = f"data: {json.dumps(content)}\n\n".encode()
    handler.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
    handler.wfile.flush()
