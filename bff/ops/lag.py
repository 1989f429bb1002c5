"""Measures scheduling lag: how late a greenlet (or thread) wakes up that sleeps for a second, again and again.

Everything else in the process waits as long. `/healthz` fails when no beat came for STALLED_SECONDS. This detects a process
that still replies but is starved; one that is stuck altogether is killed by gunicorn after its `timeout`.
"""

import threading
import time
from time import monotonic
from typing import Final

from bff.ops import metrics

BEAT_SECONDS: Final = 1.0
STALLED_SECONDS: Final = 20.0
"""Long enough that a garbage collection or a busy machine does not cause a restart."""


class LagMonitor:
    def __init__(self) -> None:
        self._start_lock = threading.Lock()
        self._started = False
        self._beat_at = 0.0

    def start(self) -> None:
        """Idempotent. Not done in the constructor: creating an app, for example in a CLI command, must not start threads."""
        with self._start_lock:
            if not self._started:
                self._started = True
                self._beat_at = monotonic()
                threading.Thread(target=self._beat, name="lag", daemon=True).start()

    def is_responsive(self) -> bool:
        """Whether there was a beat within STALLED_SECONDS. Starts the monitor if necessary."""
        self.start()
        return monotonic() < self._beat_at + STALLED_SECONDS

    def _beat(self) -> None:
        while True:
            scheduled_at = monotonic() + BEAT_SECONDS
            time.sleep(BEAT_SECONDS)
            self._beat_at = monotonic()
            metrics.LAG.observe(max(0.0, self._beat_at - scheduled_at))
