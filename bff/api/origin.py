"""Which pages may ask here, and read what we answer: our own, and those of `CORS_ALLOW_ORIGINS`.

A browser sends its cookies along whoever's page asks, so the page must be looked at: by `Sec-Fetch-Site`, which current
browsers send over TLS and on localhost, or by `Origin`. No page can forge either.
"""

from typing import Final

from flask import Response, request

from bff.errors import Forbidden

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE"
MAY_SEND: Final = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Range, X-Chat-Resume, X-Request-ID, traceparent"
MAY_READ: Final = "Location, X-Message-ID, X-Request-ID, Retry-After"
PREFLIGHT_SECONDS: Final = 600


def is_preflight(allowed: tuple[str, ...]) -> bool:
    """Whether a browser asks, for a page that may, what the page may ask."""
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers and _asker() in allowed


def check(allowed: tuple[str, ...]) -> None:
    """Raises Forbidden for what another page's browser was made to send.

    Reading is no exception: some streams are dear, and where a proxy knows its users by cookies of its own, theirs come.
    """
    changes = request.method not in SAFE
    site, asker = request.headers.get("Sec-Fetch-Site", ""), _asker()
    if asker in allowed or site == "same-origin" or not (changes or request.path.startswith("/api/")):
        return
    if site in {"cross-site", "same-site"} or (asker and not _is_own(asker)):
        raise Forbidden
    if changes and not asker and "Cookie" in request.headers:
        raise Forbidden("A request with a cookie must say which page it comes from.")


def add_cors_headers(response: Response, allowed: tuple[str, ...]) -> None:
    """Lets a page that may ask read the answer. Never `*`: cookies count."""
    if not allowed:
        return
    response.vary.add("Origin")
    if _asker() not in allowed:
        return
    headers = response.headers
    headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
    headers["Access-Control-Allow-Credentials"] = "true"
    headers["Access-Control-Expose-Headers"] = MAY_READ
    if is_preflight(allowed):
        headers["Access-Control-Allow-Methods"] = METHODS
        headers["Access-Control-Allow-Headers"] = MAY_SEND
        headers["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)


def _asker() -> str:
    return request.headers.get("Origin", "").lower()


def _is_own(asker: str) -> bool:
    """Where TLS ends before us, and nobody told us so, its origin is https all the same."""
    schemes = ("https",) if request.is_secure else ("https", "http")
    return any(asker == f"{scheme}://{request.host.lower()}" for scheme in schemes)
