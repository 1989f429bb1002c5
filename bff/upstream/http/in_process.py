"""HTTP to a service in this process: a requests adapter that calls its WSGI app instead of a socket.

The caller sends a request through a session and gets a status, headers and a body's bytes, as over a network. The service's
stream runs in its reader's greenlet or thread and waits with the reader's waiter.
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
    """A service in this process. Its app is built at the first request; `factory` gets the key that callers must send."""

    def __init__(self, name: str, factory: "Callable[[str], WSGIApplication]") -> None:
        super().__init__()
        self.url = f"http://{name}.bundled"
        self.key = secrets.token_hex(32)
        self._factory = factory
        self._build_lock = threading.Lock()
        self._app: WSGIApplication | None = None

    def send(self, request: requests.PreparedRequest, *_: Any, timeout: Any = None, **__: Any) -> requests.Response:
        """`timeout`: seconds to connect and to respond. Raises ReadTimeout, and the reason if the caller's waiter is cancelled.

        An app that does not wait with its waiter cannot be interrupted: then the timeout is noticed when it returns.
        """
        deadline = monotonic() + timeout[1]
        inner = InnerWaiter(deadline)
        response = requests.Response()
        response.request, response.url = request, str(request.url)
        with response_waiter() as waiter:
            inner.borrow(waiter)
            pieces = self.app(_environ(request, inner), _start_response(response))
            inner.borrow(None)
        response.raw = InProcessResponse(pieces, inner)
        if waiter.cancel_reason is not None or monotonic() >= deadline:
            response.close()
            waiter.check()
            raise requests.exceptions.ReadTimeout
        inner.expires_at = inf  # From here on the reader's own timeouts apply.
        return response

    @property
    def app(self) -> Any:
        with self._build_lock:
            if self._app is None:
                self._app = self._factory(self.key)
            return self._app

    def close(self) -> None:
        """Does nothing: the app serves as long as the process."""


class InProcessResponse:
    """An in-process response. `wait` runs the service until its next piece; `read_available` returns that piece."""

    reusable = False

    def __init__(self, body: Iterable[bytes], inner: InnerWaiter) -> None:
        self._iterable = body
        self._pieces = iter(body)
        self._inner = inner
        self._piece = b""
        self._got_piece = False
        self.ended = False

    def wait(self, waiter: Waiter, deadline: float) -> None:
        """Returns when the service yielded a piece or `waiter` woke up. Raises the reason if `waiter` is cancelled."""
        if self._got_piece and not self._inner.has_waited:
            waiter.wait(deadline=0.0)  # A service that never waits would keep other greenlets from running.
        self._inner.borrow(waiter, deadline)
        try:
            piece = next(self._pieces, None)
        finally:
            self._inner.borrow(None)
        waiter.check()
        self._piece, self._got_piece, self.ended = piece or b"", bool(piece), piece is None

    def read_available(self) -> bytes | None:
        """None if nothing arrived, b"" at the end. Raises ConnectionError if the service aborted the response."""
        piece, self._piece = self._piece, b""
        if self.ended and self._inner.was_aborted:
            raise ConnectionError("the connection closed in the middle of the body")
        return piece or (b"" if self.ended else None)

    def close(self) -> None:
        """The iterator first: a generator may have resources that the iterable does not close."""
        for part in (self._pieces, self._iterable):
            if (close := getattr(part, "close", None)) is not None:
                close()


def _environ(request: requests.PreparedRequest, inner: InnerWaiter) -> dict[str, Any]:
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
        waiting.WAITER_KEY: inner,
    }


def _as_wsgi(value: str | bytes) -> str:
    """Bytes as Latin-1 (PEP 3333). Raises UnicodeEncodeError for other text, as http.client does."""
    return (value.encode("latin-1") if isinstance(value, str) else value).decode("latin-1")


def _start_response(response: requests.Response) -> Any:
    """A WSGI `start_response` that stores status and headers in `response`."""

    def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> None:
        code, _, response.reason = status.partition(" ")
        response.status_code = int(code)
        response.headers = CaseInsensitiveDict(headers)

    return start_response
