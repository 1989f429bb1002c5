"""A session for URLs that callers chose: it connects to public addresses only, except for the origins that are allowed.

A host's name is resolved, its addresses are checked, and the connection is made to one of these addresses: a name whose
address changes in between (DNS rebinding) leads nowhere else. Through a proxy, which resolves the name once more, an address
is refused if this process can see it; beyond that, the proxy has to refuse it.
"""

import socket
from contextlib import suppress
from time import monotonic
from typing import Any, Final

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import ConnectionPool

from bff.config.settings import Settings
from bff.http import waiting
from bff.upstream.http.addresses import PrivateAddress, origin_of, public_addresses
from bff.upstream.http.proxy import Proxy
from bff.upstream.http.response_wait import response_wait
from bff.upstream.http.sessions import Adapter, PlainConnection, TLSConnection, new_session, shared_tls_context

POOLS: Final = 16
"""Receivers whose idle connections are kept."""
MAX_CONNECT_SECONDS: Final = 60.0
"""Without a deadline of the request."""
MAX_ADDRESSES: Final = 3
"""Of a host, to which a request tries to connect."""


class _Cut:
    """Shuts a connection down at the request's deadline, unless it is cancelled."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._descriptor = sock.dup()  # TLS takes the socket's own descriptor over.
        current = response_wait.get()
        seconds = max(0.0, current.deadline - monotonic()) if current else MAX_CONNECT_SECONDS
        self._timer = waiting.call_later(seconds, self._shut_down)

    def _shut_down(self) -> None:
        with suppress(OSError):
            self._descriptor.shutdown(socket.SHUT_RDWR)

    def cancel(self) -> None:
        self._timer.cancel()
        self._descriptor.close()


class _PublicMixin:
    """Overrides for plain and TLS connections."""

    scheme = "http"
    allowed_origins: frozenset[str] = frozenset()

    def _new_conn(self: Any) -> socket.socket:
        tunnel = getattr(self, "_tunnel_host", None)  # Set if the connection goes through a proxy.
        host, port = (tunnel, self._tunnel_port) if tunnel else (self.host, self.port)
        self._cut = _Cut(self._open(host, port, is_tunnel=bool(tunnel)))
        return self._cut.sock  # type: ignore[no-any-return]

    def _open(self: Any, host: str, port: int, *, is_tunnel: bool) -> socket.socket:
        if origin_of(f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{port}") in self.allowed_origins:
            return super()._new_conn()  # type: ignore[misc, no-any-return]
        if is_tunnel:
            with suppress(socket.gaierror):  # Only the proxy can resolve it.
                public_addresses(host.strip("[]"), port)
            return super()._new_conn()  # type: ignore[misc, no-any-return]
        try:
            return self._connect_to_public(host.strip("[]"), port)  # type: ignore[no-any-return]
        except PrivateAddress:
            raise
        except TimeoutError as error:
            raise urllib3.exceptions.ConnectTimeoutError(self, "no connection in time") from error
        except OSError as error:
            raise urllib3.exceptions.NewConnectionError(self, "no connection") from error

    def connect(self: Any) -> None:
        """Ends the TLS handshake at the request's deadline: its own timeout may be one for each of its reads."""
        self._cut = None
        try:
            super().connect()  # type: ignore[misc]
        finally:
            if self._cut is not None:
                self._cut.cancel()
                self._cut = None

    def _connect_to_public(self: Any, host: str, port: int) -> socket.socket:
        """Connects to the first address that accepts."""
        *others, last = public_addresses(host, port)[:MAX_ADDRESSES]
        for address in others:
            with suppress(OSError):
                return self._connect_to(address, port)  # type: ignore[no-any-return]
        return self._connect_to(last, port)  # type: ignore[no-any-return]

    def _connect_to(self: Any, address: str, port: int) -> socket.socket:
        return urllib3.util.connection.create_connection((address, port), self.timeout, socket_options=self.socket_options)


def _pool_classes(allowed: frozenset[str]) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    class Plain(_PublicMixin, PlainConnection):
        scheme, allowed_origins = "http", allowed

    class TLS(_PublicMixin, TLSConnection):
        scheme, allowed_origins = "https", allowed

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class TLSPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = TLS

    return {"http": PlainPool, "https": TLSPool}


class _PublicAdapter(Adapter):
    def __init__(self, settings: Settings) -> None:
        self.pool_classes = _pool_classes(frozenset(settings.webhook_allow_origins))
        super().__init__(shared_tls_context(settings.ca_file), POOLS, Proxy.of(settings), pools=POOLS)

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> ConnectionPool:
        """Without the parent's cache, which grows with each new host."""
        proxies = {"https": self._proxy.url_for(str(request.url))}
        return HTTPAdapter.get_connection_with_tls_context(self, request, verify, proxies, cert)


def public_session_for(settings: Settings) -> requests.Session:
    """A session that uses CA_FILE, HTTPS_PROXY, NO_PROXY and WEBHOOK_ALLOW_ORIGINS. Raises SettingsError."""
    session = new_session(shared_tls_context(settings.ca_file))
    adapter = _PublicAdapter(settings)
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    return session
