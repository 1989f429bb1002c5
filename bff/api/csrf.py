"""Protection against cross-site requests: only our own pages, and those of `CORS_ALLOW_ORIGINS`, may use the API.

A browser sends our cookies along with requests of any page. The page is identified by `Sec-Fetch-Site`, which current browsers
send over TLS and to localhost, or by `Origin`. No page can forge either header.
"""

from typing import Final

from flask import request

from bff.api.cors import request_origin
from bff.errors import Forbidden

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def check(allowed_origins: tuple[str, ...]) -> None:
    """Raises Forbidden for a request that a browser sent for another page.

    GET requests of the API are checked as well: streams are expensive, and where a proxy knows its users by cookies of its own,
    the browser sends those along.
    """
    is_safe = request.method in SAFE_METHODS
    site, origin = request.headers.get("Sec-Fetch-Site", ""), request_origin()
    if origin in allowed_origins or site == "same-origin" or (is_safe and not request.path.startswith("/api/")):
        return
    if site in {"cross-site", "same-site"} or (origin and not _is_own(origin)):
        raise Forbidden
    if not is_safe and not origin and "Cookie" in request.headers:
        raise Forbidden("A request with a cookie must say which page it comes from.")


def _is_own(origin: str) -> bool:
    """Where a proxy terminates TLS and does not say so, our own origin is https although the request is not."""
    schemes = ("https",) if request.is_secure else ("https", "http")
    return any(origin == f"{scheme}://{request.host.lower()}" for scheme in schemes)
