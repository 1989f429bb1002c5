"""What a stream costs whose broker does not number its events, beside one that is passed through, in turns.

`.venv/bin/python benchmarks/unnumbered.py [ROUNDS]`. Such an answer goes through our own queue and log.
"""

import time
from functools import partial
from pathlib import Path
from typing import Final

import driver
from bundled import events, web
from driver import Plan, compile_driver
from processes import Cores, cores, cpu_seconds, memory_kib, raise_file_limit
from turns import in_turns, rounds

ROUNDS: Final = 3
IDLE_STREAMS: Final = 1000
KINDS: Final[dict[str, tuple[str, ...]]] = {"passed through": (), "unnumbered": ("unnumbered",)}


def measure(arguments: tuple[str, ...], pinned: Cores) -> dict[str, float]:
    found: dict[str, float] = {}
    for rate in (50, 200):
        with driver.broker(pinned.driver, *arguments) as broker, web(Path.cwd(), pinned, **_settings(broker.port)) as place:
            found[f"CPU µs per event, {rate} events/s a stream"] = events(place, Plan("rate", rate=rate).message)["us"]
    with driver.broker(pinned.driver, *arguments) as broker, web(Path.cwd(), pinned, **_settings(broker.port)) as place:
        before = cpu_seconds(place.pids)
        with place.load(Plan("rate", rate=1000, count=1).message, 600, 100) as load:
            assert load.end(30)["completed"] == 600
        found["CPU ms per answer of one word"] = (cpu_seconds(place.pids) - before) * 1000 / 600
        memory = memory_kib(place.pids)
        with place.load(Plan("idle").message, IDLE_STREAMS, pending=32) as load:
            load.opened(40)
            time.sleep(1.5)
            found["KiB per idle stream"] = (memory_kib(place.pids) - memory) / IDLE_STREAMS
    return found


def _settings(port: int) -> dict[str, str]:
    more = {"MESSAGES_PER_MINUTE": "100000", "MAX_STREAMS_PER_USER": "100000"}
    return {"BROKER_BASE_URL": f"http://127.0.0.1:{port}", "BROKER_API_KEY": "benchmarks-only-key-of-32-bytes!", **more}


def main() -> None:
    compile_driver()
    raise_file_limit()
    in_turns([partial(measure, pinned=cores(True))], KINDS, rounds(1, ROUNDS))


if __name__ == "__main__":
    main()
