"""What trusted proxies in front of us say of a request in `X-Forwarded-*`, as WSGI middleware."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from werkzeug.middleware.proxy_fix import ProxyFix

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_PREFIX: Final = re.compile(r"(/[A-Za-z0-9._~-]+)+")
"""Anything else would be a path on another host (`//evil.example`), or invalid in a `Location`."""


class TrustedProxies:
    """`hops`: the number of proxies. Each adds to `X-Forwarded-For`; the entry of the first one is the client's address.

    Scheme, host and prefix are those that the nearest proxy names, however many there are: most proxies replace these headers
    or pass them on, so that their number of entries says nothing. Of a list the last entry is the nearest proxy's.
    """

    def __init__(self, app: "WSGIApplication", hops: int) -> None:
        self._app = ProxyFix(app, x_for=hops, x_proto=1, x_host=1, x_prefix=1)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if scheme := environ.get("HTTP_X_FORWARDED_PROTO"):
            environ["HTTP_X_FORWARDED_PROTO"] = scheme.lower()  # Case-insensitive, by RFC 3986.
        if prefix := environ.pop("HTTP_X_FORWARDED_PREFIX", ""):
            nearest = prefix.rpartition(",")[2].strip().rstrip("/")
            if _PREFIX.fullmatch(nearest):
                environ["HTTP_X_FORWARDED_PREFIX"] = nearest
        return self._app(environ, start_response)
