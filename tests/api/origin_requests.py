"""Requests as a browser sends them for a page of some origin."""

from typing import Any

from flask import Flask

from bff.auth.identity import COOKIE
from tests.live import ADA

ALLOWED_ORIGIN = "https://friend.example"
APP_ORIGIN = "capacitor://localhost"
BEHIND_TLS = {"Host": "chat.example", "X-Forwarded-Proto": "https"}
ANONYMOUS = {"AUTH_MODE": "anonymous", "TRUSTED_PROXY_HOPS": "1", "CORS_ALLOW_ORIGINS": f"{ALLOWED_ORIGIN}, {APP_ORIGIN}"}
OWN_ORIGIN = "https://chat.example"

OWN_PAGES = {
    "our page, in a current browser": {"Sec-Fetch-Site": "same-origin"},
    "our page, in an older browser": {"Origin": OWN_ORIGIN},
    "our page, with both headers": {"Sec-Fetch-Site": "same-origin", "Origin": OWN_ORIGIN},
    "our page, with another spelling": {"Origin": "https://Chat.Example"},
    "an allowed page": {"Sec-Fetch-Site": "cross-site", "Origin": ALLOWED_ORIGIN},
    "an allowed app": {"Sec-Fetch-Site": "cross-site", "Origin": APP_ORIGIN},
}
NO_PAGE = {
    "a client that is no browser": {},
    "a client behind a load balancer": {"Cookie": "AWSALB=a; AWSALBCORS=b; __cf_bm=c"},
    "a typed URL": {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
}
FORM = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
NO_CORS = {"Content-Type": "text/plain;charset=UTF-8", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "empty"}
FORGERIES = {
    "another site's page": {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
    "another site's form": FORM | {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
    "another site's form with text": FORM
    | {"Content-Type": "text/plain", "Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
    "a form that hides its origin": FORM | {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
    "a request in the mode no-cors": NO_CORS | {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
    "a request without an origin": NO_CORS | {"Sec-Fetch-Site": "cross-site"},
    "an image": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    "a link": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-User": "?1"},
    "another page of our site": {"Sec-Fetch-Site": "same-site", "Origin": "https://blog.example"},
    "a subdomain of ours": {"Sec-Fetch-Site": "same-site", "Origin": "https://user-files.chat.example"},
    "a subdomain of ours, without an origin": {"Sec-Fetch-Site": "same-site"},
    "our parent domain": {"Sec-Fetch-Site": "same-site", "Origin": "https://example"},
    "a sandboxed frame": {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
    "a sandboxed frame in an older browser": {"Origin": "null"},
    "an older browser elsewhere": {"Origin": "https://evil.example"},
    "an older browser's form": FORM | {"Origin": "https://evil.example"},
    "our page over plain HTTP": {"Origin": "http://chat.example"},
    "our page over plain HTTP, in a current browser": {"Sec-Fetch-Site": "cross-site", "Origin": "http://chat.example"},
    "a host that ends like ours": {"Origin": "https://evilchat.example"},
    "a host that begins like ours": {"Origin": "https://chat.example.evil"},
    "another port": {"Origin": f"{OWN_ORIGIN}:8443"},
    "another port, in a current browser": {"Sec-Fetch-Site": "same-site", "Origin": f"{OWN_ORIGIN}:8443"},
    "an allowed host with another scheme": {"Origin": "http://friend.example"},
    "an allowed host with another port": {"Origin": f"{ALLOWED_ORIGIN}:8443"},
    "a subdomain of an allowed host": {"Origin": "https://x.friend.example"},
    "an app that is not allowed": {"Sec-Fetch-Site": "cross-site", "Origin": "tauri://localhost"},
    "a local file": {"Sec-Fetch-Site": "cross-site", "Origin": "file://"},
    "two origins": {"Origin": f"{OWN_ORIGIN}, https://evil.example"},
    "a value of the future": {"Sec-Fetch-Site": "same-party"},
}
"""What browsers send for pages that are neither ours nor allowed, whatever the method."""


def send(
    app: Flask, method: str = "POST", path: str = "/api/ticket", body: Any = None, *, cookie: bool = True, **headers: str
) -> Any:
    """Underscores in header names stand for hyphens."""
    fields = {name.replace("_", "-"): text for name, text in headers.items()}
    return forge(app, method, path, ({"Cookie": f"{COOKIE}=x"} if cookie else {}) | fields, body)


def forge(app: Flask, method: str, path: str, headers: dict[str, str], body: Any = None) -> Any:
    """With exactly these headers, besides those of the proxy in front of us."""
    browser = app.test_client(use_cookies=False)
    return browser.open(path, method=method, headers=BEHIND_TLS | ADA | headers, json=body)
