"""HTTP to a neighbour in this process: its WSGI app is called, where a socket would be crossed for nothing.

Whoever asks still sends a request through a session and gets a status, headers and a body's bytes; only the wire between
is left out. The neighbour's stream runs in its reader's greenlet or thread, and waits where that one waits.
"""

import io
import secrets
import sys
import threading
from collections.abc import Callable, Iterable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urlsplit

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from bff.http import waiting
from bff.http.waiting import Waiter
from bff.http.waiting.inner import InnerWaiter
from bff.upstream.http.response_wait import response_waiter

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class InProcessService(BaseAdapter):
    """A service in this process. Its app is built when it is first asked: `factory` is given the key that callers show."""

    def __init__(self, name: str, factory: "Callable[[str], WSGIApplication]") -> None:
        super().__init__()
        self.url = f"http://{name}.bundled"
        self.key = secrets.token_hex(32)
        self._factory = factory
        self._building = threading.Lock()
        self._built: WSGIApplication | None = None

    def send(self, request: requests.PreparedRequest, *_: Any, timeout: Any = None, **__: Any) -> requests.Response:
        """`timeout` is of connecting and of answering, in seconds. Raises what ends the asker's watch meanwhile.

        An app that waits elsewhere than at its place cannot be left alone: then the time is up when it is done.
        """
        deadline = monotonic() + timeout[1]
        place = InnerWaiter(deadline)
        response = requests.Response()
        response.request, response.url = request, str(request.url)
        with response_waiter() as waiter:
            place.borrow(waiter)
            pieces = self.app(_environ(request, place), _filling(response))
            place.borrow(None)
        response.raw = InProcessResponse(pieces, place)
        if waiter.cancel_reason is not None or monotonic() >= deadline:
            response.close()
            waiter.check()
            raise requests.exceptions.ReadTimeout
        place.expires_at = inf  # From here on the reader's patience counts.
        return response

    @property
    def app(self) -> Any:
        with self._building:
            if self._built is None:
                self._built = self._factory(self.key)
            return self._built

    def close(self) -> None:
        """Nothing: it serves as long as the process."""


class InProcessResponse:
    """An in-process response. `wait` runs the service until its next piece; `read_available` returns that piece."""

    reusable = False

    def __init__(self, pieces: Iterable[bytes], place: InnerWaiter) -> None:
        self._response = pieces
        self._pieces = iter(pieces)
        self._place = place
        self._said = b""
        self._has_said = False
        self.ended = False

    def wait(self, waiter: Waiter, deadline: float) -> None:
        """Returns when the neighbour has said something or `waiter` woke up. Raises what ends `waiter`."""
        if self._has_said and not self._place.has_waited:
            waiter.wait(deadline=0.0)  # It never has to wait: without a pause here nobody else would have a turn.
        self._place.borrow(waiter, deadline)
        try:
            said = next(self._pieces, None)
        finally:
            self._place.borrow(None)
        waiter.check()
        self._said, self._has_said, self.ended = said or b"", bool(said), said is None

    def read_available(self) -> bytes | None:
        """None when nothing has come, b"" at the end. Raises ConnectionError when the neighbour hung up."""
        said, self._said = self._said, b""
        if self.ended and self._place.was_aborted:
            raise ConnectionError("cut in the middle of the body")
        return said or (b"" if self.ended else None)

    def close(self) -> None:
        """The pieces first: what makes them may hold more than the response knows of."""
        for made in (self._pieces, self._response):
            if (close := getattr(made, "close", None)) is not None:
                close()


def _environ(request: requests.PreparedRequest, place: InnerWaiter) -> dict[str, Any]:
    parts = urlsplit(str(request.url))
    body = request.body or b""
    assert isinstance(body, bytes)
    environ = {f"HTTP_{name.upper().replace('-', '_')}": _as_wsgi(value) for name, value in request.headers.items()}
    return environ | {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(parts.path).decode("latin-1"),
        "QUERY_STRING": parts.query,
        "CONTENT_TYPE": request.headers.get("Content-Type", ""),
        "CONTENT_LENGTH": str(len(body)),
        "SERVER_NAME": parts.hostname,
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": parts.netloc,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        waiting.WAITER_KEY: place,
    }


def _as_wsgi(value: str | bytes) -> str:
    """Bytes as Latin-1 (PEP 3333). A text that is none is refused, as it is where it goes over a socket."""
    return (value.encode("latin-1") if isinstance(value, str) else value).decode("latin-1")


def _filling(response: requests.Response) -> Any:
    def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> None:
        code, _, response.reason = status.partition(" ")
        response.status_code = int(code)
        response.headers = CaseInsensitiveDict(headers)

    return start_response
