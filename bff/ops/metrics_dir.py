"""The directory in which the processes of one gunicorn share their metrics. After a `kill -9` the next start removes it."""

import fcntl
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Final

PREFIX: Final = "chat-bff-"
LOCK: Final = "lock"
"""A file that is locked while any of the processes runs: forked processes share the lock."""


def new_path() -> Path:
    return Path(tempfile.gettempdir()) / f"{PREFIX}{secrets.token_hex(8)}"


def create(path: Path) -> None:
    """Creates a directory with a path of `new_path`, and removes those whose processes have all ended."""
    _remove_abandoned(path.parent)
    unlocked = path.with_name(f"new-{path.name}")
    unlocked.mkdir(mode=0o700)
    _lock(unlocked / LOCK, os.O_CREAT)  # Its descriptor stays open, here and in the processes forked from this one.
    unlocked.rename(path)


def _remove_abandoned(parent: Path) -> None:
    for path in parent.glob(f"{PREFIX}*"):
        lock = _lock(path / LOCK)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _lock(path: Path, flags: int = 0) -> int | None:
    """The descriptor, which locks the file until all of its copies are closed; None for a locked, missing or strange file."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | flags, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
