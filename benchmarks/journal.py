"""What the journal of the in-memory queue costs, beside QUEUE_FILE=off, in turns.

`.venv/bin/python benchmarks/journal.py [ROUNDS]`. Browser's stream, broker and engine are in the one web process. Each
journal is a new file under benchmarks/out, so on the repository's disk.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from bundled import RATE, STREAMS, WINDOW_SECONDS, WORD, WORDS, Web, events, web
from driver import compile_driver
from processes import OUT, Cores, cores, cpu_seconds, raise_file_limit
from turns import in_turns, rounds

ROUNDS: Final = 3
WITH_JOURNAL: Final = {"off": False, "journal": True}
ANSWERS, ANSWERS_PER_SECOND = 600, 100


@contextlib.contextmanager
def served(pinned: Cores, journal: bool, app: str = "app:app") -> Iterator[Web]:
    with tempfile.TemporaryDirectory(dir=OUT) as folder:
        settings = {"QUEUE_FILE": f"{folder}/queue.db" if journal else "off", "DATABASE_URL": f"sqlite:///{folder}/chat.db"}
        with web(Path.cwd(), pinned, app, ECHO_WORD_SECONDS=str(1 / RATE), **settings) as place:
            yield place


def starts(journal: bool, pinned: Cores) -> dict[str, float]:
    with served(pinned, journal) as place:
        place.answer(WORD, ANSWERS, ANSWERS_PER_SECOND)  # Warms it up.
        before = cpu_seconds(place.pids)
        place.answer(WORD, ANSWERS, ANSWERS_PER_SECOND)
        return {"CPU ms per answer of one word": (cpu_seconds(place.pids) - before) * 1000 / ANSWERS}


def spoken(journal: bool, pinned: Cores) -> dict[str, float]:
    with served(pinned, journal) as place:
        found = events(place)
    return {f"CPU µs per event, {STREAMS} streams × {RATE}/s": found["us"], "events per second": found["rate"]}


def gap(journal: bool, pinned: Cores) -> dict[str, float]:
    """Less what the machine gave to others: see tests/faults/ticking.py."""
    with served(pinned, journal, "tests.faults.ticking:app") as place, place.load(WORDS, STREAMS, 50) as load:
        load.opened(30)
        time.sleep(2)
        place.get("/longest")
        time.sleep(WINDOW_SECONDS)
        return {"longest gap of the hub, ms": place.get("/longest") * 1000}


def main() -> None:
    compile_driver()
    raise_file_limit()
    in_turns([partial(scenario, pinned=cores(True)) for scenario in (starts, spoken, gap)], WITH_JOURNAL, rounds(1, ROUNDS))


if __name__ == "__main__":
    main()
