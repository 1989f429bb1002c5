"""Security headers of every response."""

from typing import Final

from flask import Response, request

from bff.api import services

PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Allows nothing inline: a script inside a reply would not run."""
API_POLICY: Final = "default-src 'none'; frame-ancestors 'none'; sandbox"
"""In case a browser shows a response of the API as a page."""
YEAR_SECONDS: Final = 365 * 24 * 3600


def set_security_headers(response: Response) -> None:
    headers = response.headers
    is_page = response.mimetype == "text/html"
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "same-origin"
    headers["Content-Security-Policy"] = PAGE_POLICY if is_page else API_POLICY
    if is_page:
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
    if request.is_secure:
        headers["Strict-Transport-Security"] = f"max-age={YEAR_SECONDS}"
    if services.path().startswith("/api/"):
        headers.setdefault("Cache-Control", "no-store")
