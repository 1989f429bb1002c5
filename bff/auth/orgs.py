"""The organisation of a user: the one the identity provider claims, else the one in ORG_MAP_FILE, else DEFAULT_ORG."""

import json
import logging
import os
import re
import threading
from pathlib import Path
from typing import Final

from bff.auth.identity import normalize
from bff.errors import SettingsError

ORG: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 _-]{0,98}[A-Za-z0-9])?")
MAX_MAP_BYTES: Final = 16 * 1024 * 1024

log = logging.getLogger(__name__)

FileVersion = tuple[int, int, int]
"""Inode, modification time (ns), size (bytes). Differs after every change of the file."""


class Orgs:
    """`map_file` is the path of a JSON object, user id → org, or "". The file is read again when it has changed.

    Raises SettingsError if it cannot be read at the start. If it becomes invalid later, the previous map stays in force.
    """

    def __init__(self, default: str, map_file: str = "") -> None:
        self._default = default
        self._file = Path(map_file) if map_file else None
        self._lock = threading.Lock()
        self._version: FileVersion | None = None
        self._map: dict[str, str] = {}
        self._warned = False
        if self._file is not None:
            try:
                self._version, self._map = _read(self._file)
            except (OSError, ValueError, RecursionError) as error:
                raise SettingsError(f"ORG_MAP_FILE={map_file!r} is not a JSON object of user → org.") from error

    def org_of(self, user_id: str, claimed: str = "") -> str:
        """`claimed`: the org that the identity provider stated, or ""; never one from the request itself."""
        org = claimed or self._mapped_org(user_id)
        if not org or ORG.fullmatch(org):
            return org or self._default
        if not self._warned:
            self._warned = True
            log.warning("%r is not a valid organisation name: its users are assigned to %s.", org[:100], self._default)
        return self._default

    def _mapped_org(self, user_id: str) -> str:
        if self._file is not None:
            with self._lock:
                self._reload_if_changed(self._file)
        return self._map.get(user_id, "")

    def _reload_if_changed(self, file: Path) -> None:
        try:
            version = _version(file.stat())
        except OSError:
            return  # Deleted, or being replaced.
        if version == self._version:
            return
        try:
            self._version, self._map = _read(file)
        except (OSError, ValueError, RecursionError):
            self._version = version  # Do not read it, and warn, again with every request.
            log.warning("ORG_MAP_FILE has changed and is not a JSON object of user → org: the previous map stays in force.")


def _read(file: Path) -> tuple[FileVersion, dict[str, str]]:
    with file.open("rb") as opened:
        version = _version(os.fstat(opened.fileno()))
        content = json.loads(opened.read(MAX_MAP_BYTES))
    if not isinstance(content, dict) or not all(isinstance(org, str) for org in content.values()):
        raise ValueError("not an object of strings")
    return version, {normalize(user_id): org for user_id, org in content.items()}


def _version(status: os.stat_result) -> FileVersion:
    return status.st_ino, status.st_mtime_ns, status.st_size
