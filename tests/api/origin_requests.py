"""Requests as a browser sends them for a page of some origin."""

from typing import Any

from flask import Flask

from bff.auth.identity import COOKIE

ALLOWED_ORIGIN = "https://friend.example"
ANONYMOUS = {"AUTH_MODE": "anonymous", "TRUSTED_PROXY_HOPS": "1", "CORS_ALLOW_ORIGINS": ALLOWED_ORIGIN}
OWN_ORIGIN = "https://chat.example"
BEHIND_TLS = {"Host": "chat.example", "X-Forwarded-Proto": "https"}


def send(app: Flask, method: str = "POST", path: str = "/api/ticket", *, cookie: bool = True, **headers: str) -> Any:
    browser = app.test_client(use_cookies=False)
    fields = BEHIND_TLS | {name.replace("_", "-"): text for name, text in headers.items()}
    return browser.open(path, method=method, headers=fields | ({"Cookie": f"{COOKIE}=x"} if cookie else {}))
