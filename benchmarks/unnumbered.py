"""The cost of a stream from a broker that does not number its events, compared with one that is passed through.

`.venv/bin/python benchmarks/unnumbered.py [ROUNDS]`. Replies of such a broker go through the server's own queue and log.
"""

import time
from functools import partial
from pathlib import Path
from typing import Final

import driver
from bundled import measure_events, web_server
from driver import Plan, compile_driver
from interleaved import measure_interleaved, rounds_argument
from processes import Cores, cores, cpu_seconds, memory_kib, raise_file_limit

ROUNDS: Final = 3
IDLE_STREAMS: Final = 1000
REPLIES: Final = 600
BROKER_ARGUMENTS: Final[dict[str, tuple[str, ...]]] = {"passed through": (), "unnumbered": ("unnumbered",)}


def measure(arguments: tuple[str, ...], pinned: Cores) -> dict[str, float]:
    figures: dict[str, float] = {}
    checkout = Path.cwd()
    for rate in (50, 200):
        with (
            driver.broker(pinned.driver, *arguments) as broker,
            web_server(checkout, pinned, **_settings(broker.port)) as server,
        ):
            events = measure_events(server, Plan("rate", rate=rate).message)
            figures[f"CPU µs per event, {rate} events/s a stream"] = events["cpu_us"]
    with driver.broker(pinned.driver, *arguments) as broker, web_server(checkout, pinned, **_settings(broker.port)) as server:
        before = cpu_seconds(server.pids)
        server.complete_replies(Plan("rate", rate=1000, count=1).message, REPLIES, 100)
        figures["CPU ms per one-word reply"] = (cpu_seconds(server.pids) - before) * 1000 / REPLIES
        memory = memory_kib(server.pids)
        with server.load(Plan("idle").message, IDLE_STREAMS, pending=32) as load:
            load.wait_opened(40)
            time.sleep(1.5)
            figures["KiB per idle stream"] = (memory_kib(server.pids) - memory) / IDLE_STREAMS
    return figures


def _settings(broker_port: int) -> dict[str, str]:
    return {
        "BROKER_BASE_URL": f"http://127.0.0.1:{broker_port}",
        "BROKER_API_KEY": "benchmarks-only-key-of-32-bytes!",
        "MESSAGES_PER_MINUTE": "100000",
        "MAX_STREAMS_PER_USER": "100000",
    }


def main() -> None:
    compile_driver()
    raise_file_limit()
    measure_interleaved([partial(measure, pinned=cores(True))], BROKER_ARGUMENTS, rounds_argument(1, ROUNDS))


if __name__ == "__main__":
    main()
