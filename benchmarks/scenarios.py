"""The scenarios. Each measures a freshly started `Testbed` and returns its figures by the names in `table.figures`."""

import contextlib
import time
from collections.abc import Callable, Mapping
from math import inf, sqrt
from typing import Final, NamedTuple

from driver import Load, Plan, Report
from processes import Unavailable, raise_file_limit
from servers import ONE_WORD, Testbed

Figures = dict[str, float]

IDLE: Final = Plan("idle")
OPENING_SECONDS: Final = 15.0
"""Time to wait after the last stream was due to open; the load generator waits 10 s for a first event."""
SETTLE_SECONDS: Final = 1.0
FIRST_EVENT_LIMIT_MS: Final = 250.0
MAX_START_RATE: Final = 6_400
"""Loopback has some 28,000 ephemeral ports; faster starts would exhaust them."""
MAX_PENDING: Final = 32
MIN_STARTS_PER_SECOND: Final = 150
"""Idle streams are opened as fast as the server accepts them; a slower server is not waited for."""
DRIVER_SATURATED: Final = 0.9
"""Share of its core above which the driver, not the server, may be the bottleneck."""


class SteadyLoad(NamedTuple):
    """`streams` with `rate` events a second each, opened at `start_rate` a second, which every server can handle."""

    streams: int
    rate: int
    start_rate: float


class Sizes(NamedTuple):
    warm_up_starts: int
    """V8's compiler halves Node's cost of a start within the first 2,000."""
    starts: int
    starts_per_second: float
    step_seconds: float
    """Duration of one step of the search for the start rate."""
    bisections: int
    """Steps between the last sustained rate and the first that failed."""
    steady: Mapping[str, SteadyLoad]
    storm: SteadyLoad
    """Streams that are opened at a rate that delays the events of open ones."""
    window_seconds: float
    """Measured once all streams are open."""
    saturating: int
    idle: Mapping[str, int]
    capacity: int
    capacity_seconds: float


FULL: Final = Sizes(
    warm_up_starts=2000,
    starts=600,
    starts_per_second=200,
    step_seconds=2.0,
    bisections=2,
    steady={
        "100x200": SteadyLoad(100, 200, 50),
        "2000x1": SteadyLoad(2000, 1, 300),
        "1000x10": SteadyLoad(1000, 10, 125),
        "5000x1": SteadyLoad(5000, 1, 350),
    },
    storm=SteadyLoad(2000, 1, 250),
    window_seconds=4.0,
    saturating=100,
    idle={"idle2000": 2000, "idle8000": 8000},
    capacity=9000,
    capacity_seconds=20.0,  # Longer than the broker's ping and the server's heartbeat, 15 s each.
)
QUICK: Final = Sizes(
    warm_up_starts=200,
    starts=150,
    starts_per_second=100,
    step_seconds=0.7,
    bisections=1,
    steady={"100x200": SteadyLoad(100, 200, 100), "1000x10": SteadyLoad(200, 10, 100)},
    storm=SteadyLoad(300, 1, 150),
    window_seconds=2.0,
    saturating=100,
    idle={"idle2000": 200, "idle8000": 800},
    capacity=900,
    capacity_seconds=3.0,
)


def starts(testbed: Testbed, sizes: Sizes) -> Figures:
    """One-word replies at a rate that every server can handle."""
    testbed.warm_up(sizes.warm_up_starts)
    before = testbed.cpu_seconds()
    with testbed.load(ONE_WORD, sizes.starts, sizes.starts_per_second) as load:
        report = load.wait_ended(sizes.starts / sizes.starts_per_second + OPENING_SECONDS)
    used = testbed.cpu_seconds() - before
    return {
        "starts.seconds": testbed.start_seconds,
        "starts.cpu_ms": used * 1000 / max(1, report["completed"]),
        "starts.lost": _lost(report),
    }


def start_rate(testbed: Testbed, sizes: Sizes) -> Figures:
    """The highest rate of starts at which the 99th percentile of the time to the first event stays under the limit."""
    testbed.warm_up()
    sustained, failed, rate = 0.0, inf, 100.0
    bisections = sizes.bisections
    while rate <= MAX_START_RATE and bisections >= 0:
        if _sustains(testbed, rate, sizes.step_seconds):
            sustained = rate
        else:
            failed = rate
        if failed < inf:
            bisections -= 1
        rate = sqrt(sustained * failed) if sustained and failed < inf else rate * 2 if sustained else rate / 2
    return {"start_rate.per_second": sustained, "start_rate.driver_saturated": float(failed == inf)}


def _sustains(testbed: Testbed, rate: float, seconds: float) -> bool:
    with testbed.load(ONE_WORD, max(20, round(rate * seconds)), rate) as load:
        opened = load.wait_opened(seconds + OPENING_SECONDS)
        ended = load.wait_ended(OPENING_SECONDS)
    return not _lost(ended) and bool(opened["first_event_ms"]["p99"] <= FIRST_EVENT_LIMIT_MS)


def steady(name: str) -> "Measure":
    def measure(testbed: Testbed, sizes: Sizes) -> Figures:
        """Many streams at a constant rate."""
        streams, rate, start_rate = sizes.steady[name]
        _need_files(streams)
        testbed.warm_up()
        with testbed.load(Plan("rate", rate=rate), streams, start_rate) as load:
            first = load.wait_opened(streams / start_rate + OPENING_SECONDS)["first_event_ms"]
            figures, report = _window(testbed, load, sizes.window_seconds)
        figures |= {"first_p50": first["p50"], "first_p99": first["p99"], "lost": _lost(report)}
        # A server that falls behind may still show a low latency for the events that arrived.
        figures["kept_up"] = figures["events_per_second"] / (streams * rate)
        return {f"{name}.{figure}": value for figure, value in figures.items()}

    return measure


def storm(testbed: Testbed, sizes: Sizes) -> Figures:
    """The events of open streams while others are opened."""
    streams, rate, start_rate = sizes.storm
    _need_files(streams)
    testbed.warm_up()
    with testbed.load(Plan("rate", rate=rate), streams, start_rate) as load:
        opened = load.wait_opened(streams / start_rate + OPENING_SECONDS)
        report = load.stop()
    added, first = opened["added_ms"], opened["first_event_ms"]
    return {
        "storm.added_p50": added["p50"],
        "storm.added_p99": added["p99"],
        "storm.first_p50": first["p50"],
        "storm.first_p99": first["p99"],
        "storm.lost": _lost(report),
    }


def saturation(testbed: Testbed, sizes: Sizes) -> Figures:
    """Throughput of streams that always have more data."""
    testbed.warm_up()
    with testbed.load(Plan("saturate", count=1_000_000_000), sizes.saturating, pending=MAX_PENDING) as load:
        load.wait_opened(OPENING_SECONDS)
        testbed.broker.proceed()
        figures, _ = _window(testbed, load, sizes.window_seconds)
    return {f"saturation.{figure}": value for figure, value in figures.items()}


def _window(testbed: Testbed, load: Load, seconds: float) -> tuple[Figures, Report]:
    """Measures for some seconds, after the backlog from opening the streams has drained."""
    time.sleep(SETTLE_SECONDS)
    start = load.mark()
    used, driver_used = testbed.cpu_seconds(), testbed.driver_seconds()
    time.sleep(seconds)
    used, driver_used = testbed.cpu_seconds() - used, testbed.driver_seconds() - driver_used
    report = load.mark()
    driver_used += report["cpu_seconds"] - start["cpu_seconds"]
    return {
        "cpu_us": used * 1e6 / max(1, report["events"]),
        "events_per_second": report["events_per_second"],
        "added_p50": report["added_ms"]["p50"],
        "added_p99": report["added_ms"]["p99"],
        "added_max": report["added_ms"]["max"],
        "driver_saturated": float(driver_used > DRIVER_SATURATED * report["seconds"]),
    }, report


def idle(name: str) -> "Measure":
    def measure(testbed: Testbed, sizes: Sizes) -> Figures:
        """Memory per idle stream, compared with the same process after its first reply."""
        streams = sizes.idle[name]
        _need_files(streams)
        empty = testbed.memory_kib()
        with testbed.load(IDLE, streams, pending=MAX_PENDING) as load:
            _open_all(load, streams)
            used = testbed.memory_kib() - empty
        return {f"{name}.empty_mib": empty / 1024, f"{name}.stream_kib": used / streams}

    return measure


def _open_all(load: Load, streams: int) -> None:
    seconds = OPENING_SECONDS + streams / MIN_STARTS_PER_SECOND
    with contextlib.suppress(Unavailable):
        load.wait_opened(seconds)
    time.sleep(SETTLE_SECONDS)
    report = load.mark()
    if report["open"] != streams:
        raise Unavailable(f"only {report['open']:,} of {streams:,} streams were open after {seconds:.0f} s")


def capacity(testbed: Testbed, sizes: Sizes) -> Figures:
    """Many streams in one process, idle for a while; then all replies end at once."""
    _need_files(sizes.capacity)
    with testbed.load(IDLE, sizes.capacity, pending=MAX_PENDING) as load:
        with contextlib.suppress(Unavailable):  # The number of open streams is checked below.
            load.wait_opened(OPENING_SECONDS + sizes.capacity / MIN_STARTS_PER_SECOND)
        time.sleep(sizes.capacity_seconds)
        idle_report = load.mark()
        testbed.broker.proceed()
        report = load.wait_ended(30)
    return {
        "capacity.open": idle_report["open"],
        "capacity.refused": report["refused"],
        "capacity.dropped": report["dropped"] + report["failed"],
        "capacity.completed": report["completed"],
    }


def _need_files(streams: int) -> None:
    """A stream takes two sockets of the server."""
    limit = raise_file_limit()
    if 2 * streams + 200 > limit:
        raise Unavailable(f"{streams} streams need {2 * streams + 200} file descriptors; the limit is {limit}")


def _lost(report: Report) -> int:
    return int(report["refused"] + report["dropped"] + report["failed"])


Measure = Callable[[Testbed, Sizes], Figures]

SCENARIOS: Final[dict[str, Measure]] = {
    "starts": starts,
    "start-rate": start_rate,
    "100x200": steady("100x200"),
    "saturation": saturation,
    "storm": storm,
    "2000x1": steady("2000x1"),
    "1000x10": steady("1000x10"),
    "5000x1": steady("5000x1"),
    "idle2000": idle("idle2000"),
    "idle8000": idle("idle8000"),
    "capacity": capacity,
}
STEADY: Final = frozenset(FULL.steady)
"""Scenarios that a quick run may leave out."""
OURS_ONLY: Final = frozenset({"capacity"})
"""A target of this project only."""
SINGLE_ROUND: Final = frozenset({"idle2000", "idle8000", "capacity"})
"""Memory and counts vary by less than a percent, and these scenarios take longest."""
