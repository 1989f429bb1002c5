"""Where a page ended, as a text that means nothing to whoever brings it back: whole numbers and UUIDs."""

import base64
import json
import re
from typing import Any
from uuid import UUID

from bff.errors import InvalidRequest

DIGITS_MOST = 14


def encode(*parts: int | UUID) -> str:
    text = json.dumps([str(part) for part in parts], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str, *kinds: type[int] | type[UUID]) -> list[Any]:
    """As many parts as `kinds`. Raises InvalidRequest for anything else."""
    try:
        parts = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            raise ValueError(parts)
        return [_part(part, kind) for part, kind in zip(parts, kinds, strict=True)]
    except (ValueError, RecursionError):
        raise InvalidRequest("cursor: is none of ours.") from None


def _part(text: str, kind: type[int] | type[UUID]) -> int | UUID:
    if kind is int and not re.fullmatch(f"[0-9]{{1,{DIGITS_MOST}}}", text):
        raise ValueError(text)
    return kind(text)
