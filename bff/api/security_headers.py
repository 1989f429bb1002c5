"""What every answer tells a browser it must not do with it."""

from typing import Final

from flask import Response, request

PAGE: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Nothing inline: a script that an answer might bring along has nowhere to run."""
NO_PAGE: Final = "default-src 'none'; frame-ancestors 'none'; sandbox"
"""For what is no page, should somebody's browser show it as one."""
YEAR_SECONDS: Final = 365 * 24 * 3600


def set_security_headers(response: Response) -> None:
    headers = response.headers
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "same-origin"
    headers["Content-Security-Policy"] = PAGE if response.mimetype == "text/html" else NO_PAGE
    if response.mimetype == "text/html":
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
    if request.is_secure:
        headers["Strict-Transport-Security"] = f"max-age={YEAR_SECONDS}"
    if request.path.startswith("/api/"):
        headers.setdefault("Cache-Control", "no-store")
