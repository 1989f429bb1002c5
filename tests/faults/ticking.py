"""The app, with a door that tells how long its process did nothing for others: what only a clock inside it can see."""

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
    """The longest time (seconds) between two ticks, less what the machine gave to others meanwhile."""

    def __init__(self) -> None:
        self.longest = 0.0
        threading.Thread(target=self._tick, daemon=True).start()

    def _tick(self) -> None:
        while True:
            began, waited = time.monotonic(), ready_but_not_run()
            time.sleep(TICK_SECONDS)
            stolen = ready_but_not_run() - waited
            self.longest = max(self.longest, time.monotonic() - began - TICK_SECONDS - stolen)


def ready_but_not_run() -> float:
    """Seconds that this thread waited for a processor, 0 where the kernel does not say."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


ticker = Ticker()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`/longest` tells it, and begins again."""
    if environ["PATH_INFO"] != "/longest":
        return _app(environ, start_response)
    longest, ticker.longest = ticker.longest, 0.0
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(longest).encode()]


app.extensions = _app.extensions  # type: ignore[attr-defined] - where gunicorn.conf.py finds the drain
