"""The app with `/longest`, the longest time its event loop was blocked, measured by a clock inside the process."""

import json
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bff import create_app

TICK_SECONDS = 0.005

_app = create_app()


class Ticker:
    """Measures the longest delay (seconds) of a tick, without the time the machine ran other processes."""

    def __init__(self) -> None:
        self.longest = 0.0
        threading.Thread(target=self._tick, daemon=True).start()

    def _tick(self) -> None:
        while True:
            started, waited = time.monotonic(), run_queue_seconds()
            time.sleep(TICK_SECONDS)
            stolen = run_queue_seconds() - waited
            self.longest = max(self.longest, time.monotonic() - started - TICK_SECONDS - stolen)


def run_queue_seconds() -> float:
    """Seconds this thread has waited for a CPU; 0 if the kernel does not tell."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


ticker = Ticker()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`/longest` returns the longest delay and resets it."""
    if environ["PATH_INFO"] != "/longest":
        return _app(environ, start_response)
    longest, ticker.longest = ticker.longest, 0.0
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(longest).encode()]
