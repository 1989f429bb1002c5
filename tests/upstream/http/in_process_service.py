"""A service in this process with a stream, called through `requests` like a remote one."""

import threading
from contextlib import closing
from time import monotonic

from flask import Flask, Response, request

from bff.http import waiting
from bff.http.responses import EventStream, StreamOptions
from bff.http.sse import Event, comment
from bff.http.streams import StreamLimiter
from bff.upstream.http import EventSource, InProcessService, new_session, send
from tests.live import DEADLINE


class Service:
    """A service whose `/stream` sends what `events` yields, and which records the keys it was built with."""

    def __init__(self, events=lambda waiter: [Event("", "a")], heartbeat_seconds: float = 60.0) -> None:
        self.keys: list[str] = []
        self.streams = StreamLimiter(100, 100)
        self.closed = threading.Event()
        self._events = events
        self._options = StreamOptions(comment("beat"), heartbeat_seconds)
        self.transport = InProcessService("service", self._app)

    def _app(self, key: str) -> Flask:
        self.keys.append(key)
        app = Flask(__name__)
        app.add_url_rule("/stream", view_func=self._stream)
        app.add_url_rule("/wait", view_func=self._wait)
        app.add_url_rule("/<path:path>", view_func=self._mirror, methods=["POST", "DELETE"])
        return app

    def _stream(self) -> Response:
        slot = self.streams.acquire("ann")
        return EventStream(self._events, self._options, environ=request.environ, slot=slot, close=self.closed.set)

    def _wait(self) -> str:
        with closing(waiting.new_waiter(waiting.client(request.environ))) as waiter:
            while True:
                waiter.wait()

    def _mirror(self, path: str) -> tuple[dict[str, str], int, dict[str, str]]:
        body, key = request.get_data(as_text=True), request.headers["X-API-Key"]
        return {"path": path, "query": request.args["q"], "key": key, "body": body}, 202, {"X-Method": request.method}

    def request(self, path: str = "/stream", method: str = "GET", seconds: float = DEADLINE, **options):
        deadline = monotonic() + seconds
        session, headers = new_session(to=self.transport), {"X-API-Key": self.transport.key}
        return send(session, method, self.transport.url + path, headers=headers, connect=1.0, deadline=deadline, **options)

    def open(self, silence: float = DEADLINE) -> EventSource:
        return EventSource(self.request(), silence)


def data(events) -> list[str]:
    return [event.data for event in events if event is not None]


def forever(waiter):
    """One event, then silence."""
    yield Event("", "first")
    while True:
        yield None
        waiter.wait()
