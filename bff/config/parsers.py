"""Parsers of settings. Each takes the text and returns the value, or raises ValueError whose message follows the name."""

import ipaddress
import re
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

URL_CHARACTERS = r"[\x21-\x7e]+"
"""Printable ASCII. Other characters of a URL must be percent-encoded, or in punycode."""
ORIGIN = r"(?P<scheme>[a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?"
DEFAULT_PORTS = {"http": "80", "https": "443"}
NO_PROXY_ENTRY = r"\*|(\*?\.)?[a-z0-9_-][a-z0-9._-]*(:[0-9]{1,5})?|[0-9a-f:.]+(/[0-9]{1,3})?|\[[0-9a-f:.]+\](:[0-9]{1,5})?"
POSTGRESQL_SCHEMES = frozenset({"postgres", "postgresql", "postgresql+psycopg"})

Parse = Callable[[str], Any]


def integer(low: int, high: int = 2**40) -> Parse:
    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,15}", text):
            raise ValueError("is not a whole number")
        if not low <= int(text) <= high:
            raise ValueError(f"is not between {low} and {high}")
        return int(text)

    return parse


def seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text):
        raise ValueError("is not a number")
    if float(text) <= 0:
        raise ValueError("is not above zero")
    return float(text)


def non_negative_seconds(text: str) -> float:
    return 0.0 if re.fullmatch(r"0(\.0+)?", text) else seconds(text)


def retry_seconds(text: str) -> tuple[float, ...]:
    """Comma-separated; one entry for each further try."""
    return tuple(non_negative_seconds(part.strip()) for part in text.split(","))


def webhook_secrets(text: str) -> str:
    """One or two, separated by a space, in the form of Standard Webhooks: `whsec_` and 24 to 64 bytes in Base64."""
    secrets = text.split()
    if not 1 <= len(secrets) <= 2 or not all(_is_webhook_secret(secret) for secret in secrets):
        raise ValueError("is not whsec_ and 24 to 64 bytes in Base64, or two of them separated by a space")
    return " ".join(secrets)


def _is_webhook_secret(text: str) -> bool:
    try:
        return text.startswith("whsec_") and 24 <= len(b64decode(text.removeprefix("whsec_"), validate=True)) <= 64
    except ValueError:
        return False


def boolean(text: str) -> bool:
    if text not in {"0", "1"}:
        raise ValueError("is neither 0 nor 1")
    return text == "1"


def choice(*options: str) -> Parse:
    def parse(text: str) -> str:
        if text not in options:
            raise ValueError(f"is not one of {', '.join(options)}")
        return text

    return parse


def base_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port  # `port` raises if it is invalid.
    except ValueError:
        raise ValueError("is not an http(s) URL") from None
    if (
        parts.scheme not in {"http", "https"}
        or not host
        or parts.netloc.endswith(":")
        or not re.fullmatch(URL_CHARACTERS, text)
    ):
        raise ValueError("is not an http(s) URL")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("holds more than scheme, host, port and path")
    return text.rstrip("/")


def ca_file(text: str) -> str:
    """A file of certificates in PEM. They are parsed later: `ssl` must not be imported before gevent has patched it."""
    try:
        content = Path(text).read_bytes()
    except OSError:
        raise ValueError("cannot be read") from None
    if not re.search(rb"^-----BEGIN (TRUSTED )?CERTIFICATE-----\s", content, re.MULTILINE):
        raise ValueError("holds no certificate in PEM")
    return text


def proxy_url(text: str) -> str:
    """Only of proxies that are reached by plain HTTP: TLS inside TLS cannot be read without blocking."""
    message = "is not the URL of an HTTP proxy, http://[user:password@]host[:port]"
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError(message) from None
    if parts.scheme != "http" or not host or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(message)
    return text


def no_proxy(text: str) -> tuple[str, ...]:
    """Separated by commas or spaces: hosts or domains, addresses, networks, or `*`."""
    entries = tuple(entry for entry in re.split(r"[\s,]+", text.lower()) if entry)
    for entry in entries:
        if not re.fullmatch(NO_PROXY_ENTRY, entry) or ("/" in entry and not _is_network(entry)):
            raise ValueError("is not a list of hosts, domains and networks like engine.internal,10.0.0.0/8")
    return entries


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def redis_prefix(text: str) -> str:
    """No colon, so that no prefix is the beginning of another one's keys; nothing that a pattern or a hash tag consists of."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text):
        raise ValueError("must have 1 to 64 letters, digits and ._-")
    return text


def url(text: str) -> str:
    """Like `base_url`, but unchanged, and a query is allowed."""
    base_url(text.partition("?")[0])
    if not re.fullmatch(URL_CHARACTERS, text) or "#" in text:
        raise ValueError("is not an http(s) URL")
    return text


def database_url(text: str) -> str:
    message = "is neither a sqlite:///<file> nor a postgresql://<host>/<name> URL"
    try:
        parts = urlsplit(text)
        name, _ = parts.path.strip("/"), parts.port
    except ValueError:
        raise ValueError(message) from None
    is_file = parts.scheme == "sqlite" and not parts.netloc and name != ":memory:"
    if not name or not (is_file or parts.scheme in POSTGRESQL_SCHEMES):
        raise ValueError(message)
    return text


def org(text: str) -> str:
    """A slash would make owners ambiguous: see `Identity.owner`."""
    if "/" in text:
        raise ValueError("holds a slash")
    return text


def host(text: str) -> str:
    """An address, IPv6 with or without brackets, or a host name."""
    if ":" in text:
        try:
            return str(ipaddress.IPv6Address(text[1:-1] if re.fullmatch(r"\[.*\]", text) else text))
        except ValueError:
            raise ValueError("is neither an address nor a host name") from None
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", text):
        raise ValueError("is neither an address nor a host name")
    return text


def header_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", text):
        raise ValueError("is not a header's name")
    return text


def cookie_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", text):
        raise ValueError("is not a cookie's name")
    return text


def origins(text: str) -> tuple[str, ...]:
    """Comma-separated, of any scheme: pages in apps and browser extensions have schemes of their own.

    `*` is refused, as any page could read what its visitor's cookie gives access to; so is `null`, the origin of every
    sandboxed frame and local file.
    """
    return tuple(_origin(part.strip().lower()) for part in text.split(",") if part.strip())


def _origin(text: str) -> str:
    """As browsers send it: without the scheme's default port."""
    match = re.fullmatch(ORIGIN, text)
    if not match or int(match["port"] or 0) > 65535:
        raise ValueError("is not a list of origins like https://chat.example")
    is_default = DEFAULT_PORTS.get(match["scheme"]) == match["port"]
    return text.removesuffix(f":{match['port']}") if is_default else text
