"""The app of tests/faults/ticking.py with a journal whose commits take SLOW_SECONDS."""

from typing import Any

from gevent.monkey import get_original

from bff.broker.queue.journal.file import JournalFile

SLOW_SECONDS = 0.2

_append = JournalFile.append
_sleep = get_original("time", "sleep")  # Blocks the whole thread, as a disk does.


def append(self: JournalFile, *rows: Any) -> Any:
    _sleep(SLOW_SECONDS)
    return _append(self, *rows)


JournalFile.append = append  # type: ignore[method-assign]

from tests.faults.ticking import app  # noqa: E402 - imported after the patch

__all__ = ["app"]
