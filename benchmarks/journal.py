"""The cost of the in-memory queue's journal, compared with QUEUE_FILE=off.

`.venv/bin/python benchmarks/journal.py [ROUNDS]`. The browser's stream, broker and engine are in one web process. Each
journal is a new file under benchmarks/out, on the repository's disk.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from bundled import MANY_WORDS, ONE_WORD, RATE, STREAMS, WINDOW_SECONDS, WebServer, measure_events, web_server
from driver import compile_driver
from interleaved import measure_interleaved, rounds_argument
from processes import OUT, Cores, cores, cpu_seconds, raise_file_limit

ROUNDS: Final = 3
WITH_JOURNAL: Final = {"off": False, "journal": True}
REPLIES, REPLIES_PER_SECOND = 600, 100


@contextlib.contextmanager
def _server(pinned: Cores, journal: bool, app: str = "app:app") -> Iterator[WebServer]:
    with tempfile.TemporaryDirectory(dir=OUT) as folder:
        settings = {"QUEUE_FILE": f"{folder}/queue.db" if journal else "off", "DATABASE_URL": f"sqlite:///{folder}/chat.db"}
        with web_server(Path.cwd(), pinned, app, ECHO_WORD_SECONDS=str(1 / RATE), **settings) as server:
            yield server


def starts(journal: bool, pinned: Cores) -> dict[str, float]:
    with _server(pinned, journal) as server:
        server.complete_replies(ONE_WORD, REPLIES, REPLIES_PER_SECOND)  # Warm-up.
        before = cpu_seconds(server.pids)
        server.complete_replies(ONE_WORD, REPLIES, REPLIES_PER_SECOND)
        return {"CPU ms per one-word reply": (cpu_seconds(server.pids) - before) * 1000 / REPLIES}


def events(journal: bool, pinned: Cores) -> dict[str, float]:
    with _server(pinned, journal) as server:
        measured = measure_events(server)
    return {
        f"CPU µs per event, {STREAMS} streams × {RATE}/s": measured["cpu_us"],
        "events per second": measured["per_second"],
    }


def hub_lag(journal: bool, pinned: Cores) -> dict[str, float]:
    """The longest time in which the gevent hub did not run, without the time the process was not scheduled."""
    with _server(pinned, journal, "tests.faults.ticking:app") as server, server.load(MANY_WORDS, STREAMS, 50) as load:
        load.wait_opened(30)
        time.sleep(2)
        server.get("/longest")  # Resets the maximum.
        time.sleep(WINDOW_SECONDS)
        return {"longest gap of the hub, ms": server.get("/longest") * 1000}


def main() -> None:
    compile_driver()
    raise_file_limit()
    pinned = cores(True)
    scenarios = [partial(scenario, pinned=pinned) for scenario in (starts, events, hub_lag)]
    measure_interleaved(scenarios, WITH_JOURNAL, rounds_argument(1, ROUNDS))


if __name__ == "__main__":
    main()
