"""Checks of settings that are valid on their own. Each yields sentences that name the setting at fault."""

import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import fields
from importlib.util import find_spec
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from bff.config.settings import AUTH_MODES, DEFAULT_MODEL_READ_SECONDS, KEY_BYTES, Settings

MIN_SECRET_CHARACTERS: Final = 8
"""Shorter values, such as a key for development, are not redacted: they occur in ordinary words."""
PRIVATE_SUFFIXES: Final = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".svc", ".flycast")
"""Of host names that no public resolver knows, in a platform's or a home's own network."""


def refusals(settings: Settings, *, backend_only: bool, own_authenticator: bool = False) -> Iterator[str]:
    """Why this process must not start. `backend_only`: leaves out the checks for processes that serve browsers.

    `own_authenticator`: AUTH_MODE has no effect.
    """
    yield from _missing_packages(settings)
    if not settings.run_worker and not settings.redis_url:
        yield "RUN_WORKER=0 needs REDIS_URL: without Redis no other process can produce replies."
    # Only if it was set: the default need not fit, as ANSWER_MAX_SECONDS ends a reply all the same.
    if DEFAULT_MODEL_READ_SECONDS != settings.model_read_seconds >= settings.answer_max_seconds:
        yield "MODEL_READ_SECONDS must be below ANSWER_MAX_SECONDS."
    yield from _webhooks(settings)
    uses_auth_mode = not backend_only and not own_authenticator
    if uses_auth_mode:
        yield from _authentication(settings)
    if not settings.development:
        yield from dangers(settings)
        if settings.expose_upstream_errors:
            yield "EXPOSE_UPSTREAM_ERRORS=1 is for development only: users must not see upstream errors."
        if uses_auth_mode and not settings.auth_mode:
            yield f"AUTH_MODE is required in production: {', '.join(AUTH_MODES[:-1])} or {AUTH_MODES[-1]}."
        if not backend_only:
            yield from _production_only(settings)


def _webhooks(settings: Settings) -> Iterator[str]:
    if settings.webhook_url and not settings.webhook_secret:
        yield "WEBHOOK_SECRET is required with WEBHOOK_URL: webhooks are signed."
    if settings.webhook_url.startswith("http://") and _origin(settings.webhook_url) not in settings.webhook_allow_origins:
        yield "WEBHOOK_URL must begin with https://, unless its origin is in WEBHOOK_ALLOW_ORIGINS."


def _missing_packages(settings: Settings) -> Iterator[str]:
    """requirements.txt has them; the wheel leaves them to its extras."""
    needs = (
        ("REDIS_URL", "redis", "redis", bool(settings.redis_url)),
        ("AUTH_MODE=jwt", "jwt", "jwt", settings.auth_mode == "jwt"),
        ("DATABASE_URL", "psycopg", "postgres", settings.database_url.startswith("postgresql")),
    )
    for name, module, extra, needed in needs:
        if needed and find_spec(module) is None:
            yield f"{name} needs further packages: pip install 'chat-bff[{extra}]'."


def dangers(settings: Settings) -> Iterator[str]:
    """What production refuses and development only warns of."""
    for name, url, key in _services(settings):
        if url and not key and name != "OPENAI":  # A local model server needs no key.
            yield f"{name}_API_KEY is required with {name}_BASE_URL."
        if key and _is_public(url):
            yield f"{name}_BASE_URL must begin with https://: {name}_API_KEY would be sent in the clear."
    if _is_public(settings.auth_jwt_jwks_url):
        yield "AUTH_JWT_JWKS_URL must begin with https://: an attacker in between could replace the keys."


def warnings(settings: Settings) -> Iterator[str]:
    """What may be intended: it is logged, and the process starts."""
    if settings.redis_url and settings.database_url.startswith("sqlite") and not settings.development:
        yield "REDIS_URL with SQLite: other machines do not see the conversations; DATABASE_URL can name PostgreSQL."


def secret_values(settings: Settings) -> list[str]:
    """All values to redact in logs: the secret settings, and the passwords inside secret URLs."""
    secret_fields = [field for field in fields(settings) if field.metadata.get("secret")]
    values = [str(getattr(settings, field.name)) for field in secret_fields if getattr(settings, field.name) != field.default]
    return [
        secret
        for value in values
        for secret in (value, *value.split(), *_passwords(value))
        if len(secret) >= MIN_SECRET_CHARACTERS
    ]


def _passwords(text: str) -> list[str]:
    """Of a URL, also those in its query, of Sentinels."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return []
    return [parts.password or "", *[value for name, value in parse_qsl(parts.query) if name.endswith("password")]]


def _services(settings: Settings) -> Iterator[tuple[str, str, str]]:
    yield "BROKER", settings.broker_base_url, settings.broker_api_key
    yield "ENGINE", settings.engine_base_url, settings.engine_api_key
    yield "OPENAI", settings.openai_base_url, settings.openai_api_key


def _authentication(settings: Settings) -> Iterator[str]:
    if settings.auth_mode == "proxy" and not _is_key(settings.auth_proxy_secret):
        yield f"AUTH_PROXY_SECRET is required with AUTH_MODE=proxy, {KEY_BYTES} bytes at least."
    if settings.auth_mode == "jwt":
        if bool(settings.auth_jwt_secret) == bool(settings.auth_jwt_jwks_url):
            yield "AUTH_MODE=jwt requires AUTH_JWT_SECRET or AUTH_JWT_JWKS_URL, and not both."
        if settings.auth_jwt_secret and not _is_key(settings.auth_jwt_secret):
            yield f"AUTH_JWT_SECRET must have {KEY_BYTES} bytes at least."


def _production_only(settings: Settings) -> Iterator[str]:
    if not _is_key(settings.secret_key):
        yield f"SECRET_KEY is required in production, {KEY_BYTES} bytes at least."
    if settings.dyno and not settings.database_url.startswith("postgres"):
        yield "DATABASE_URL is required here, and must not be SQLite: this platform's disk is emptied at every restart."


def _origin(url: str) -> str:
    parts = urlsplit(url.lower())
    return f"{parts.scheme}://{parts.netloc.removesuffix(':80')}"


def _is_key(text: str) -> bool:
    return len(text.encode()) >= KEY_BYTES


def _is_public(url: str) -> bool:
    """Whether requests to it cross the public internet unencrypted."""
    parts = urlsplit(url)
    if parts.scheme != "http":
        return False
    host = (parts.hostname or "").rstrip(".")
    try:
        return _address(host).is_global
    except ValueError:
        return "." in host and not host.endswith(PRIVATE_SUFFIXES)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Raises ValueError. `inet_aton` also accepts an IPv4 address as one number, such as 0x08080808."""
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        address = ipaddress.IPv6Address(host.partition("%")[0])
        return address.ipv4_mapped or address
