"""Sessions that are safe to share between users, and the connections they are made of."""

import logging
import socket
import ssl
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connectionpool import ConnectionPool

from bff.upstream.http.in_process import InProcessService
from bff.upstream.http.response import NonBlockingResponse

RECEIVE_BUFFER_BYTES: Final = 32 * 1024
"""What an upstream can pile up for a browser that reads slowly; the kernel doubles it, and else lets it grow to megabytes."""

# A pool that is full throws surplus connections away, which is right for streams and no reason for a line each.
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


class _Ours:
    """What our connections do differently, encrypted or not."""

    response_class: Any = NonBlockingResponse

    @property
    def is_connected(self: Any) -> bool:
        """Whether a kept-alive connection can be used again: a look at the socket, where urllib3 would poll it."""
        if self.sock is None or isinstance(self.sock, ssl.SSLSocket):
            return bool(super().is_connected)  # type: ignore[misc]
        self.sock.settimeout(0)
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False  # Closed by the peer, or it says what nobody asked for.

    def _new_conn(self: Any) -> socket.socket:
        # An address needs no looking up, for which gevent would ask a thread. The name is urllib3's, kept for subclasses;
        # were it to change, an address would be looked up again, which a test notices.
        if _is_address(self.host):
            try:
                return _connected(self.host, self.port, self.timeout, self.socket_options)
            except TimeoutError as error:
                raise urllib3.exceptions.ConnectTimeoutError(self, "no connection in time") from error
            except OSError as error:
                raise urllib3.exceptions.NewConnectionError(self, "no connection") from error
        found: socket.socket = super()._new_conn()  # type: ignore[misc]
        return found


class _Connection(_Ours, urllib3.connection.HTTPConnection):
    pass


class _TLSConnection(_Ours, urllib3.connection.HTTPSConnection):
    pass


def _is_address(host: str) -> bool:
    try:
        socket.inet_aton(host)
    except OSError:
        return False
    return host.count(".") == 3


def _connected(host: str, port: int, timeout: Any, options: Any) -> socket.socket:
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
    ConnectionCls = _Connection


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class _Adapter(HTTPAdapter):
    """One TLS context for all connections: a stream takes 34 KiB and 1.2 ms. Parsing the CA bundle for each: 770 KiB, 16 ms."""

    def __init__(self, tls: ssl.SSLContext, pool_size: int) -> None:
        self._tls = tls
        self._pools: dict[tuple[str, str], ConnectionPool] = {}
        super().__init__(pool_connections=4, pool_maxsize=pool_size, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        bounded = (socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        options = [*urllib3.connection.HTTPConnection.default_socket_options, bounded]
        super().init_poolmanager(*args, ssl_context=self._tls, socket_options=options, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> ConnectionPool:
        """By the address alone: that there is no proxy and no certificate of ours is the same for each request."""
        scheme, _, host, *_ = str(request.url).split("/", 3)
        if (pool := self._pools.get((scheme, host))) is None:
            pool = self._pools[scheme, host] = super().get_connection_with_tls_context(request, verify, proxies, cert)
        return pool

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        """What stands after the host: our URLs have no fragment. Having them parsed takes a twentieth of a stream's start."""
        parts = str(request.url).split("/", 3)
        return f"/{parts[3]}" if len(parts) == 4 else super().request_url(request, proxies)

    def build_response(self, request: requests.PreparedRequest, answer: Any) -> requests.Response:
        """Without its cookies, which nobody may keep, and without the encoding of a text that nobody asks for."""
        response = requests.Response()
        response.status_code, response.reason = answer.status, answer.reason
        response.headers = CaseInsensitiveDict(answer.headers)
        response.raw, response.request, response.url = answer, request, str(request.url)
        return response

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: it would have the bundle loaded again, into the shared context. The context verifies, host name included."""


def tls_context(ca_file: str = "") -> ssl.SSLContext:
    """Verifies certificates against `ca_file`, or certifi's bundle; always checks host names."""
    context: ssl.SSLContext = urllib3.util.create_urllib3_context()
    context.load_verify_locations(ca_file or DEFAULT_CA_BUNDLE_PATH)
    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = True
    return context


def new_session(tls: ssl.SSLContext | None = None, pool_size: int = 64, to: object = None) -> requests.Session:
    """A session that is safe to share between users: what one user's answer sets, no other user's request carries.

    `to`: the service it is for; a neighbour in this process is called directly.
    """
    session = requests.Session()
    session.trust_env = False  # A ~/.netrc would replace our keys, a proxy would be asked for on every request.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = _Adapter(tls or tls_context(), pool_size)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    if isinstance(to, InProcessService):
        session.mount(to.url, to)
    return session
