"""An engine that notes what it was asked, and in whose words one sees at which asking they were said."""

import contextlib
import json
import re
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def question(name: str, words: int, apart: float = 0.0, silence: float = 0.0) -> str:
    """What makes the engine say so many words, so many seconds apart, after so many of silence."""
    return f"{name} {words} {apart} {silence}"


def answer(message: str, asking: int) -> list[str]:
    """The words to a question; `asking`: 1 for the first time."""
    name, words, _, _ = message.split()
    return [f"{name}:{asking}.{number} " for number in range(int(words))]


def askings(text: str) -> set[int]:
    """In which askings these words were said."""
    return {int(number) for number in re.findall(r":([0-9]+)\.", text)}


class Engine:
    """Speaks the engine's HTTP for as long as it is entered."""

    def __init__(self) -> None:
        self.asked: defaultdict[str, int] = defaultdict(int)
        """How often, by message."""
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with contextlib.suppress(OSError):
                    engine._answer(self, body["message"])
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

    def _answer(self, handler: BaseHTTPRequestHandler, message: str) -> None:
        with self._lock:
            self.asked[message] += 1
            words = answer(message, self.asked[message])
        _, _, apart, silence = message.split()
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        self._stopping.wait(float(silence))
        for word in words:
            _say(handler, {"type": "progress", "text": word})
            self._stopping.wait(float(apart))
        response = {"responses": ["".join(words)], "response_language": "en", "voice_audio_base64": None}
        _say(handler, {"type": "complete", "response": response})
        handler.wfile.write(b"0\r\n\r\n")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256


def _say(handler: BaseHTTPRequestHandler, content: dict[str, Any]) -> None:
    event = f"data: {json.dumps(content)}\n\n".encode()
    handler.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
    handler.wfile.flush()
