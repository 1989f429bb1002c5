"""Sessions that are safe to share between users, and their connections."""

import logging
import socket
import ssl
from collections.abc import Mapping
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connectionpool import ConnectionPool

from bff.config.settings import Settings
from bff.errors import SettingsError
from bff.upstream.http.in_process import InProcessService
from bff.upstream.http.proxy import Proxy
from bff.upstream.http.response import NonBlockingResponse

RECEIVE_BUFFER_BYTES: Final = 32 * 1024
"""Limits what an upstream can send ahead to a slow client. The kernel doubles it; without it, the buffer grows to megabytes."""

NO_PROXY: Final = Proxy()

# urllib3 logs a warning for each connection that a full pool discards, which is normal with streams.
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


class _ConnectionMixin:
    """Overrides for plain and TLS connections."""

    response_class: Any = NonBlockingResponse

    @property
    def is_connected(self: Any) -> bool:
        """Whether an idle connection can be reused: one non-blocking `recv`, cheaper than urllib3's `poll`."""
        if self.sock is None or isinstance(self.sock, ssl.SSLSocket):
            return bool(super().is_connected)  # type: ignore[misc]
        self.sock.settimeout(0)
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False  # Closed by the peer, or unexpected data.

    def _new_conn(self: Any) -> socket.socket:
        # An IP address needs no DNS lookup, which gevent does in a thread pool. urllib3 keeps the name `_new_conn` for
        # subclasses; a test fails if it is no longer called.
        if _is_ipv4_address(self.host):
            try:
                return _connect(self.host, self.port, self.timeout, self.socket_options)
            except TimeoutError as error:
                raise urllib3.exceptions.ConnectTimeoutError(self, "no connection in time") from error
            except OSError as error:
                raise urllib3.exceptions.NewConnectionError(self, "no connection") from error
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        return sock


class PlainConnection(_ConnectionMixin, urllib3.connection.HTTPConnection):
    pass


class TLSConnection(_ConnectionMixin, urllib3.connection.HTTPSConnection):
    pass


def _is_ipv4_address(host: str) -> bool:
    try:
        socket.inet_aton(host)
    except OSError:
        return False
    return host.count(".") == 3


def _connect(host: str, port: int, timeout: Any, options: Any) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        for option in options or ():
            sock.setsockopt(*option)
        sock.settimeout(timeout)
        sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = PlainConnection


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = TLSConnection


POOL_CLASSES: Final[Mapping[str, type[urllib3.HTTPConnectionPool]]] = {"http": _Pool, "https": _TLSPool}


class Adapter(HTTPAdapter):
    """Shares one TLS context: 34 KiB and 1.2 ms per stream instead of 770 KiB and 16 ms to parse the CA bundle each time."""

    pool_classes: Mapping[str, type[urllib3.HTTPConnectionPool]] = POOL_CLASSES

    def __init__(self, tls: ssl.SSLContext, pool_size: int, proxy: Proxy, pools: int = 4) -> None:
        self._proxy = proxy
        receive_buffer = (socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        options = [*urllib3.connection.HTTPConnection.default_socket_options, receive_buffer]
        self._pool_options: dict[str, Any] = {"ssl_context": tls, "socket_options": options}
        self._pools: dict[tuple[str, str], ConnectionPool] = {}
        super().__init__(pool_connections=pools, pool_maxsize=pool_size, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **(kwargs | self._pool_options))
        self.poolmanager.pool_classes_by_scheme = self.pool_classes

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **self._pool_options, **kwargs)
        manager.pool_classes_by_scheme = self.pool_classes
        return manager

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> ConnectionPool:
        """Looks a pool up by scheme and host only, which determine the proxy; there are no client certificates."""
        scheme, _, host, *_ = str(request.url).split("/", 3)
        if (pool := self._pools.get((scheme, host))) is None:
            proxies = {"https": self._proxy.url_for(str(request.url))}
            pool = self._pools[scheme, host] = super().get_connection_with_tls_context(request, verify, proxies, cert)
        return pool

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        """The part after the host; our URLs have no fragment. Parsing them takes 5 % of the CPU time of a stream's start."""
        parts = str(request.url).split("/", 3)
        return f"/{parts[3]}" if len(parts) == 4 else super().request_url(request, proxies)

    def build_response(self, request: requests.PreparedRequest, raw: Any) -> requests.Response:
        """Ignores the response's cookies, and skips detecting an encoding, which nothing uses."""
        response = requests.Response()
        response.status_code, response.reason = raw.status, raw.reason
        response.headers = CaseInsensitiveDict(raw.headers)
        response.raw, response.request, response.url = raw, request, str(request.url)
        return response

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: requests would load the CA bundle into the shared context, which verifies already."""


def tls_context(ca_file: str = "") -> ssl.SSLContext:
    """Verifies certificates against certifi's bundle and `ca_file`, and checks host names. Raises SettingsError."""
    context: ssl.SSLContext = urllib3.util.create_urllib3_context()
    context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    if ca_file:
        _load_ca_file(context, ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = True
    return context


def _load_ca_file(context: ssl.SSLContext, ca_file: str) -> None:
    try:
        context.load_verify_locations(ca_file)
    except OSError as error:  # ssl.SSLError is one.
        raise SettingsError(f"CA_FILE={ca_file!r} holds no valid certificate in PEM.") from error


shared_tls_context: Final = cache(tls_context)
"""One for all sessions of the process."""


def session_for(settings: Settings, to: object = None) -> requests.Session:
    """A session for an upstream that uses CA_FILE, HTTPS_PROXY and NO_PROXY. `to`: as in `new_session`.

    Raises SettingsError for a damaged CA_FILE, even if this session does not need it.
    """
    needs_no_tls = isinstance(to, InProcessService) and not settings.ca_file
    tls = None if needs_no_tls else shared_tls_context(settings.ca_file)
    return new_session(tls, to=to, proxy=Proxy.of(settings))


def new_session(
    tls: ssl.SSLContext | None = None, pool_size: int = 64, to: object = None, proxy: Proxy = NO_PROXY
) -> requests.Session:
    """A session that users can share: cookies of one user's response are never sent with another user's request.

    `to`: the service it is for; an `InProcessService` is called directly.
    """
    session = requests.Session()
    session.trust_env = False  # ~/.netrc would override our keys, and proxy settings would be looked up for each request.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    if isinstance(to, InProcessService):
        session.mount(to.url, to)
        return session
    adapter = Adapter(tls or tls_context(), pool_size, proxy)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session
