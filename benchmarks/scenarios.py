"""What is measured: each scenario is given a fresh `Lab` and returns its figures, by the names that `table.figures` knows."""

import contextlib
import time
from collections.abc import Callable, Mapping
from math import inf, sqrt
from typing import Final, NamedTuple

from driver import Load, Plan, Report
from processes import Unavailable, raise_file_limit
from servers import SHORT, Lab

Figures = dict[str, float]

IDLE: Final = Plan("idle")
OPENING_SECONDS: Final = 15.0
"""How long after the last stream should have been opened: the load generator gives up on a first event after 10 s."""
SETTLE_SECONDS: Final = 1.0
FIRST_EVENT_LIMIT_MS: Final = 250.0
START_RATE_MAX: Final = 6_400
"""A loopback has some 28,000 ports: faster starts would wait for those."""
PENDING: Final = 32
SLOWEST_STARTS: Final = 150
"""Idle streams are opened as fast as the server takes them; one that takes fewer a second is not waited for."""
DRIVER_FULL: Final = 0.9
"""Share of its core; above, the driver and not the server may be what limits."""


class Fan(NamedTuple):
    """So many streams at so many events a second each, opened at a rate that leaves every peer some room."""

    streams: int
    rate: int
    start_rate: float


class Sizes(NamedTuple):
    starts_before: int
    """To warm up with: V8 compiles what it has seen often, and halves Node's cost of a start within the first 2,000."""
    starts: int
    starts_per_second: float
    step_seconds: float
    """One step of the search for the start rate."""
    halvings: int
    """Steps between the last rate that held, doubling, and the first that did not."""
    fans: Mapping[str, Fan]
    window: float
    """Seconds measured once all streams are open."""
    saturating: int
    idle: Mapping[str, int]
    held: int
    held_seconds: float


FULL: Final = Sizes(
    starts_before=2000,
    starts=600,
    starts_per_second=200,
    step_seconds=2.0,
    halvings=2,
    fans={
        "100x200": Fan(100, 200, 50),
        "2000x1": Fan(2000, 1, 300),
        "1000x10": Fan(1000, 10, 125),
        "5000x1": Fan(5000, 1, 350),
    },
    window=4.0,
    saturating=100,
    idle={"idle2000": 2000, "idle8000": 8000},
    held=9000,
    held_seconds=20.0,  # Longer than the broker's ping and the server's heartbeat, 15 s each.
)
QUICK: Final = Sizes(
    starts_before=200,
    starts=150,
    starts_per_second=100,
    step_seconds=0.7,
    halvings=1,
    fans={"100x200": Fan(100, 200, 100), "1000x10": Fan(200, 10, 100)},
    window=2.0,
    saturating=100,
    idle={"idle2000": 200, "idle8000": 800},
    held=900,
    held_seconds=3.0,
)


def starts(lab: Lab, sizes: Sizes) -> Figures:
    """One-word answers at a rate that every server keeps up with."""
    lab.warm_up(sizes.starts_before)
    before = lab.cpu_seconds()
    with lab.load(SHORT, sizes.starts, sizes.starts_per_second) as load:
        report = load.end(sizes.starts / sizes.starts_per_second + OPENING_SECONDS)
    used = lab.cpu_seconds() - before
    return {
        "starts.seconds": lab.start_seconds,
        "starts.cpu_ms": used * 1000 / max(1, report["completed"]),
        "starts.lost": _lost(report),
    }


def start_rate(lab: Lab, sizes: Sizes) -> Figures:
    """The most starts a second at which the 99th percentile of the time to the first event stays under the limit."""
    lab.warm_up()
    held, broken, rate = 0.0, inf, 100.0
    halvings = sizes.halvings
    while rate <= START_RATE_MAX and halvings >= 0:
        if _holds(lab, rate, sizes.step_seconds):
            held = rate
        else:
            broken = rate
        if broken < inf:
            halvings -= 1
        rate = sqrt(held * broken) if held and broken < inf else rate * 2 if held else rate / 2
    return {"start_rate.per_second": held, "start_rate.driver_full": float(broken == inf)}


def _holds(lab: Lab, rate: float, seconds: float) -> bool:
    with lab.load(SHORT, max(20, round(rate * seconds)), rate) as load:
        first = load.opened(seconds + OPENING_SECONDS)
        last = load.end(OPENING_SECONDS)
    return not _lost(last) and bool(first["first_event_ms"]["p99"] <= FIRST_EVENT_LIMIT_MS)


def fan(name: str) -> "Measure":
    def measure(lab: Lab, sizes: Sizes) -> Figures:
        """Many streams at a steady rate."""
        streams, rate, start_rate = sizes.fans[name]
        _need_files(streams)
        lab.warm_up()
        with lab.load(Plan("rate", rate=rate), streams, start_rate) as load:
            first = load.opened(streams / start_rate + OPENING_SECONDS)["first_event_ms"]
            figures, report = _window(lab, load, sizes.window)
        figures |= {"first_p50": first["p50"], "first_p99": first["p99"], "lost": _lost(report)}
        # What was asked for against what came: a server that falls behind shows it here, whatever its latency says.
        figures["kept_up"] = figures["events_per_second"] / (streams * rate)
        return {f"{name}.{figure}": value for figure, value in figures.items()}

    return measure


def saturation(lab: Lab, sizes: Sizes) -> Figures:
    """Streams that always have more: how much goes through."""
    lab.warm_up()
    with lab.load(Plan("saturate", count=1_000_000_000), sizes.saturating, pending=PENDING) as load:
        load.opened(OPENING_SECONDS)
        lab.broker.go()
        figures, _ = _window(lab, load, sizes.window)
    return {f"saturation.{figure}": value for figure, value in figures.items()}


def _window(lab: Lab, load: Load, seconds: float) -> tuple[Figures, Report]:
    """Some seconds in the middle, after as long as it takes what piled up while opening to drain."""
    time.sleep(SETTLE_SECONDS)
    began = load.mark()
    used, driver_used = lab.cpu_seconds(), lab.driver_seconds()
    time.sleep(seconds)
    used, driver_used = lab.cpu_seconds() - used, lab.driver_seconds() - driver_used
    report = load.mark()
    driver_used += report["cpu_seconds"] - began["cpu_seconds"]
    return {
        "cpu_us": used * 1e6 / max(1, report["events"]),
        "events_per_second": report["events_per_second"],
        "added_p50": report["added_ms"]["p50"],
        "added_p99": report["added_ms"]["p99"],
        "added_max": report["added_ms"]["max"],
        "driver_full": float(driver_used > DRIVER_FULL * report["seconds"]),
    }, report


def idle(name: str) -> "Measure":
    def measure(lab: Lab, sizes: Sizes) -> Figures:
        """What an open stream takes while nothing happens in it, against the same process after its first answer."""
        streams = sizes.idle[name]
        _need_files(streams)
        empty = lab.memory_kib()
        with lab.load(IDLE, streams, pending=PENDING) as load:
            _open_all(load, streams)
            used = lab.memory_kib() - empty
        return {f"{name}.empty_mib": empty / 1024, f"{name}.stream_kib": used / streams}

    return measure


def _open_all(load: Load, streams: int) -> None:
    seconds = OPENING_SECONDS + streams / SLOWEST_STARTS
    with contextlib.suppress(Unavailable):
        load.opened(seconds)
    time.sleep(SETTLE_SECONDS)
    report = load.mark()
    if report["open"] != streams:
        raise Unavailable(f"only {report['open']:,} of {streams:,} streams were open after {seconds:.0f} s")


def held(lab: Lab, sizes: Sizes) -> Figures:
    """As many streams as one process shall hold, quiet for a while; then every one is told its answer's end, at once."""
    _need_files(sizes.held)
    with lab.load(IDLE, sizes.held, pending=PENDING) as load:
        with contextlib.suppress(Unavailable):  # Late is not lost: `open` tells.
            load.opened(OPENING_SECONDS + sizes.held / SLOWEST_STARTS)
        time.sleep(sizes.held_seconds)
        quiet = load.mark()
        lab.broker.go()
        report = load.end(30)
    return {
        "held.open": quiet["open"],
        "held.refused": report["refused"],
        "held.dropped": report["dropped"] + report["failed"],
        "held.completed": report["completed"],
    }


def _need_files(streams: int) -> None:
    """A stream is two sockets of the server."""
    limit = raise_file_limit()
    if 2 * streams + 200 > limit:
        raise Unavailable(f"{streams} streams need {2 * streams + 200} file descriptors, a process may have {limit}")


def _lost(report: Report) -> int:
    return int(report["refused"] + report["dropped"] + report["failed"])


Measure = Callable[[Lab, Sizes], Figures]

SCENARIOS: Final[dict[str, Measure]] = {
    "starts": starts,
    "start-rate": start_rate,
    "100x200": fan("100x200"),
    "saturation": saturation,
    "2000x1": fan("2000x1"),
    "1000x10": fan("1000x10"),
    "5000x1": fan("5000x1"),
    "idle2000": idle("idle2000"),
    "idle8000": idle("idle8000"),
    "held": held,
}
LOADS: Final = frozenset(FULL.fans)
"""The scenarios that a run of small sizes may be without."""
OURS_ALONE: Final = frozenset({"held"})
"""A promise of ours; the peers never made it."""
ONCE: Final = frozenset({"idle2000", "idle8000", "held"})
"""Bytes and counts: they come out the same to a percent, and take longest. One round is enough."""
