"""What a setting's text may be: each takes the text and gives its value, or raises ValueError with what is wrong with it."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

SENDABLE = r"[\x21-\x7e]+"
"""A URL as it can stand in a request; what else it means it says in %-escapes or punycode."""
POSTGRESQL = frozenset({"postgres", "postgresql", "postgresql+psycopg"})

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


def boolean(text: str) -> bool:
    if text not in {"0", "1"}:
        raise ValueError("is neither 0 nor 1")
    return text == "1"


def choice(*words: str) -> Parse:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"is none of {', '.join(words)}")
        return text

    return parse


def base_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port  # A port that is none shows when it is asked for.
    except ValueError:
        raise ValueError("is not an http(s) URL") from None
    if parts.scheme not in {"http", "https"} or not host or parts.netloc.endswith(":") or not re.fullmatch(SENDABLE, text):
        raise ValueError("is not an http(s) URL")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("holds more than scheme, host, port and path")
    return text.rstrip("/")


def redis_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError("is not a Redis URL") from None
    if not ((parts.scheme in {"redis", "rediss"} and parts.hostname) or (parts.scheme == "unix" and parts.path)):
        raise ValueError("is not a Redis URL")
    return text


def url(text: str) -> str:
    """Like `base_url`, but as it stands, and it may hold a query."""
    base_url(text.partition("?")[0])
    if not re.fullmatch(SENDABLE, text) or "#" in text:
        raise ValueError("is not an http(s) URL")
    return text


def database_url(text: str) -> str:
    wrong = "is neither a sqlite:///<file> nor a postgresql://<host>/<name> URL"
    try:
        parts = urlsplit(text)
        name, _ = parts.path.strip("/"), parts.port
    except ValueError:
        raise ValueError(wrong) from None
    is_file = parts.scheme == "sqlite" and not parts.netloc and name != ":memory:"
    if not name or not (is_file or parts.scheme in POSTGRESQL):
        raise ValueError(wrong)
    return text


def org(text: str) -> str:
    """A slash would make one owner of two: see `Identity.owner`."""
    if "/" in text:
        raise ValueError("holds a slash")
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
    """Comma-separated. `*` is none: it would let any page read what its visitor's cookie opens."""
    found = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for origin in found:
        if not re.fullmatch(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", origin):
            raise ValueError("is not a list of origins like https://chat.example")
    return found
