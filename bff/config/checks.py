"""What makes a start unsafe: each a sentence that names the setting. Production refuses, development only warns."""

import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import fields
from typing import Final
from urllib.parse import urlsplit

from bff.config.settings import AUTH_MODES, KEY_BYTES, Settings

SECRET_MIN: Final = 8
"""What is shorter, as somebody's key in development, is a part of words."""
INSIDE: Final = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".svc", ".flycast")
"""Names that no public resolver knows: a platform's own network, or a house's."""


def refusals(settings: Settings, *, neighbour: bool) -> Iterator[str]:
    """Why this process must not start. A `neighbour` in a process of its own knows no browsers."""
    if not settings.run_worker and not settings.redis_url:
        yield "RUN_WORKER=0 needs REDIS_URL: without it nobody else can answer."
    if not neighbour:
        yield from _identity(settings)
    if not settings.development:
        yield from dangers(settings)
        if settings.expose_upstream_errors:
            yield "EXPOSE_UPSTREAM_ERRORS=1 is for development: what services say of themselves is not for users."
        if not neighbour:
            yield from _alone_in_production(settings)


def dangers(settings: Settings) -> Iterator[str]:
    """What is forgiven in development, where it is said as a warning."""
    for name, url, key in _services(settings):
        if url and not key and name != "OPENAI":  # A model's server in one's own house wants none.
            yield f"{name}_API_KEY is required with {name}_BASE_URL."
        if key and _is_public(url):
            yield f"{name}_BASE_URL must begin with https://: it would show {name}_API_KEY to everybody on the way."
    if _is_public(settings.auth_jwt_jwks_url):
        yield "AUTH_JWT_JWKS_URL must begin with https://: somebody on the way could put in keys of their own."


def warnings(settings: Settings) -> Iterator[str]:
    """What may be meant: it is logged, and the process starts."""
    if settings.redis_url and settings.database_url.startswith("sqlite") and not settings.development:
        yield "REDIS_URL with SQLite: other machines do not see the conversations; DATABASE_URL can name PostgreSQL."


def secrets_of(settings: Settings) -> list[str]:
    """What must be in no output, a URL's password on its own included."""
    hidden = [field for field in fields(settings) if field.metadata.get("secret")]
    values = [str(getattr(settings, field.name)) for field in hidden if getattr(settings, field.name) != field.default]
    return [secret for value in values for secret in (value, _password(value)) if len(secret) >= SECRET_MIN]


def _password(text: str) -> str:
    try:
        return urlsplit(text).password or ""
    except ValueError:
        return ""


def _services(settings: Settings) -> Iterator[tuple[str, str, str]]:
    yield "BROKER", settings.broker_base_url, settings.broker_api_key
    yield "ENGINE", settings.engine_base_url, settings.engine_api_key
    yield "OPENAI", settings.openai_base_url, settings.openai_api_key


def _identity(settings: Settings) -> Iterator[str]:
    if settings.auth_mode == "proxy" and not _is_key(settings.auth_proxy_secret):
        yield f"AUTH_PROXY_SECRET is required with AUTH_MODE=proxy, {KEY_BYTES} bytes at least."
    if settings.auth_mode == "jwt":
        if bool(settings.auth_jwt_secret) == bool(settings.auth_jwt_jwks_url):
            yield "AUTH_MODE=jwt requires AUTH_JWT_SECRET or AUTH_JWT_JWKS_URL, and not both."
        if settings.auth_jwt_secret and not _is_key(settings.auth_jwt_secret):
            yield f"AUTH_JWT_SECRET must have {KEY_BYTES} bytes at least."


def _alone_in_production(settings: Settings) -> Iterator[str]:
    if not settings.auth_mode:
        yield f"AUTH_MODE is required in production: {', '.join(AUTH_MODES[:-1])} or {AUTH_MODES[-1]}."
    if not _is_key(settings.secret_key):
        yield f"SECRET_KEY is required in production, {KEY_BYTES} bytes at least."
    if settings.dyno and not settings.database_url.startswith("postgres"):
        yield "DATABASE_URL is required here, and no SQLite: this platform's disk is emptied at every restart."


def _is_key(text: str) -> bool:
    return len(text.encode()) >= KEY_BYTES


def _is_public(url: str) -> bool:
    """Whether it goes in the clear through networks that are not ours."""
    parts = urlsplit(url)
    if parts.scheme != "http":
        return False
    host = (parts.hostname or "").rstrip(".")
    try:
        return _address(host).is_global
    except ValueError:
        return "." in host and not host.endswith(INSIDE)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Raises ValueError. An IPv4 address can be written as a name without dots, too."""
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        address = ipaddress.IPv6Address(host.partition("%")[0])
        return address.ipv4_mapped or address
