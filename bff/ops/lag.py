"""Whether this process still gets round to everything: a beat a second, by a greenlet or thread like any other.

A process that is stuck for good answers nothing, and is ended by gunicorn (`timeout`, above half a minute). This is for one
that answers but is starved; and how late each beat is, is what everybody else had to wait, too.
"""

import threading
import time
from time import monotonic
from typing import Final

from bff.ops import metrics

BEAT_SECONDS: Final = 1.0
STILL_SECONDS: Final = 20.0
"""Without a beat, after which a restart helps. A long garbage collection or a busy machine is no reason for one."""


class LagMonitor:
    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._beating = False
        self._beat_at = 0.0

    def start(self) -> None:
        """Idempotent. Not done at construction: a factory that is only looked at must not start threads."""
        with self._starting:
            if not self._beating:
                self._beating = True
                self._beat_at = monotonic()
                threading.Thread(target=self._beat, name="lag", daemon=True).start()

    def is_there(self) -> bool:
        self.start()
        return monotonic() < self._beat_at + STILL_SECONDS

    def _beat(self) -> None:
        while True:
            due = monotonic() + BEAT_SECONDS
            time.sleep(BEAT_SECONDS)
            self._beat_at = monotonic()
            metrics.LAG.observe(max(0.0, self._beat_at - due))
