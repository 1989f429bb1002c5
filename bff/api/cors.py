"""CORS: which other pages may read our responses, by `CORS_ALLOW_ORIGINS`.

See https://fetch.spec.whatwg.org/#http-cors-protocol.
"""

import re
from typing import Final

from flask import Response, request

ALLOW_METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE"
ALLOW_HEADERS: Final = (
    "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Range, X-Chat-Resume, X-Request-ID, traceparent"
)
"""For a preflight request that names no headers."""
HEADER_NAMES: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+( *, *[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")
PREFLIGHT_VARY: Final = ("Access-Control-Request-Headers", "Access-Control-Request-Method")
EXPOSE_HEADERS: Final = (
    "Location, X-Message-ID, X-On-Disconnect, X-Request-ID, Retry-After, x-workflow-run-id, x-workflow-stream-tail-index"
)
MAX_AGE_SECONDS: Final = 600


def request_origin() -> str:
    """The origin of the page that sent the request, in lower case; "" if unknown."""
    return request.headers.get("Origin", "").lower()


def is_preflight(allowed_origins: tuple[str, ...]) -> bool:
    """Whether this is the preflight request of an allowed page."""
    is_cors_preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
    return is_cors_preflight and request_origin() in allowed_origins


def add_cors_headers(response: Response, allowed_origins: tuple[str, ...]) -> None:
    """Names the origin and never `*`, which browsers refuse for requests with cookies."""
    if not allowed_origins:
        return
    response.vary.add("Origin")
    if request_origin() not in allowed_origins:
        return
    headers = response.headers
    headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
    headers["Access-Control-Allow-Credentials"] = "true"
    headers["Access-Control-Expose-Headers"] = EXPOSE_HEADERS
    if is_preflight(allowed_origins):
        response.vary.update(PREFLIGHT_VARY)
        headers["Access-Control-Allow-Methods"] = ALLOW_METHODS
        headers["Access-Control-Allow-Headers"] = _allow_headers()
        headers["Access-Control-Max-Age"] = str(MAX_AGE_SECONDS)


def _allow_headers() -> str:
    """All that are requested, as clients send headers of their own (x-stainless-*). Trust depends on the origin alone."""
    requested = request.headers.get("Access-Control-Request-Headers", "").strip()
    return requested if HEADER_NAMES.fullmatch(requested) else ALLOW_HEADERS
