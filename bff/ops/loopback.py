"""A neighbour inside this process: its WSGI app behind a loopback port, started when it is first asked for.

It is spoken to over HTTP as if it stood elsewhere, so that development and production take the same path.
"""

import logging
import secrets
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)


class Loopback:
    """`factory` is given the key that callers will show. Threads serve it, greenlets under gevent."""

    def __init__(self, name: str, factory: "Callable[[str], WSGIApplication]") -> None:
        self.name = name
        self.key = secrets.token_hex(32)
        self._factory = factory
        self._starting = threading.Lock()
        self._server: BaseWSGIServer | None = None

    @property
    def app(self) -> Any:
        return self._started().app

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._started().server_port}"

    def _started(self) -> BaseWSGIServer:
        with self._starting:
            if self._server is None:
                app = self._factory(self.key)
                self._server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Handler)
                threading.Thread(target=self._server.serve_forever, name=self.name, daemon=True).start()
                log.info("the bundled %s listens on loopback port %d", self.name, self._server.server_port)
            return self._server


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # Without it a stream has no chunks, and a cut would look like its end.

    def log_request(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the door that was knocked on first has its line."""
