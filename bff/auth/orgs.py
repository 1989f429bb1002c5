"""Whose organisation a user belongs to: what the identity claims, else what the operator's map says, else the default."""

import json
import logging
import os
import re
import threading
from pathlib import Path
from typing import Final

from bff.errors import SettingsError

ORG: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 _-]{0,98}[A-Za-z0-9])?")
MAP_MAX_BYTES: Final = 16 * 1024 * 1024

log = logging.getLogger(__name__)

Seen = tuple[int, int, int]
"""What of a file changes when it does: inode, nanoseconds, bytes."""


class Orgs:
    """`map_file` holds a JSON object, user id → org; "" for none. It is read again when it has changed.

    Raises SettingsError when the map cannot be read at the start. Later the one that was read before stays in force.
    """

    def __init__(self, default: str, map_file: str = "") -> None:
        self._default = default
        self._file = Path(map_file) if map_file else None
        self._lock = threading.Lock()
        self._seen: Seen | None = None
        self._map: dict[str, str] = {}
        self._warned = False
        if self._file is not None:
            try:
                self._seen, self._map = _read(self._file)
            except (OSError, ValueError, RecursionError) as error:
                raise SettingsError(f"ORG_MAP_FILE={map_file!r} is no JSON object of user → org.") from error

    def org_of(self, user_id: str, claimed: str = "") -> str:
        """`claimed`: by whoever signed the user in, never by a request."""
        org = claimed or self._mapped(user_id)
        if not org or ORG.fullmatch(org):
            return org or self._default
        if not self._warned:
            self._warned = True
            log.warning("%r is no organisation's name: its users belong to %s.", org[:100], self._default)
        return self._default

    def _mapped(self, user_id: str) -> str:
        if self._file is not None:
            with self._lock:
                self._look_again(self._file)
        return self._map.get(user_id, "")

    def _look_again(self, file: Path) -> None:
        try:
            seen = _seen(file.stat())
        except OSError:
            return  # Being replaced, or gone.
        if seen == self._seen:
            return
        try:
            self._seen, self._map = _read(file)
        except (OSError, ValueError, RecursionError):
            self._seen = seen  # Not to be read, and complained about, with every request.
            log.warning("ORG_MAP_FILE has changed and is no JSON object of user → org: the one before stays in force.")


def _read(file: Path) -> tuple[Seen, dict[str, str]]:
    with file.open("rb") as opened:
        seen = _seen(os.fstat(opened.fileno()))
        content = json.loads(opened.read(MAP_MAX_BYTES))
    if not isinstance(content, dict) or not all(isinstance(org, str) for org in content.values()):
        raise ValueError("no object of texts")
    return seen, content


def _seen(status: os.stat_result) -> Seen:
    return status.st_ino, status.st_mtime_ns, status.st_size
