"""Opaque pagination cursors: integers and UUIDs, as JSON in URL-safe base64."""

import base64
import json
import re
from typing import Any
from uuid import UUID

from bff.errors import InvalidRequest

MAX_DIGITS = 14


def encode(*parts: int | UUID) -> str:
    text = json.dumps([str(part) for part in parts], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str, *types: type[int] | type[UUID]) -> list[Any]:
    """One value for each of `types`. Raises InvalidRequest for any other cursor."""
    try:
        parts = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            raise ValueError(parts)
        return [_parse(part, part_type) for part, part_type in zip(parts, types, strict=True)]
    except (ValueError, RecursionError):
        raise InvalidRequest("cursor: is not valid.") from None


def _parse(text: str, part_type: type[int] | type[UUID]) -> int | UUID:
    if part_type is int and not re.fullmatch(f"[0-9]{{1,{MAX_DIGITS}}}", text):
        raise ValueError(text)
    return part_type(text)
