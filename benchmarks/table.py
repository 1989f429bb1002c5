"""Turns raw results into a Markdown table of medians and ratios."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from scenarios import Sizes

README: Final = Path(__file__).parent / "README.md"
BEGIN: Final = "<!-- results: written by run.py --write -->"
END: Final = "<!-- end of results -->"

Results = Sequence[Mapping[str, Any]]
"""One item per server, scenario and round: `server`, `scenario`, `figures` (name → number), `problem` (a message or "")."""


class Figure(NamedTuple):
    name: str
    label: str
    digits: int
    has_ratio: bool = True
    """False for counts, whose ratio means nothing."""


def figures(sizes: Sizes) -> list[Figure]:
    rows = [
        Figure("starts.cpu_ms", "CPU per stream started and ended, ms", 2),
        Figure("start_rate.per_second", "starts per second, p99 of the first event under 250 ms", 0),
        Figure("100x200.cpu_us", "CPU per event, 100 streams × 200/s, µs", 1),
        Figure("saturation.cpu_us", f"CPU per event, {sizes.saturating} streams saturated, µs", 1),
        Figure("saturation.events_per_second", "events per second, saturated", 0),
        Figure("saturation.added_p99", "added latency p99, saturated, ms", 1),
        Figure("starts.seconds", "process start to first reply, s", 2),
        Figure("idle2000.empty_mib", "memory of the process after its first reply, MiB", 1),
    ]
    for name, streams in sizes.idle.items():
        rows.append(Figure(f"{name}.stream_kib", f"memory per idle stream, {streams:,} open, KiB", 1))
    for name, steady in sizes.steady.items():
        load = f"{steady.streams:,} streams × {steady.rate}/s"
        rows += [
            Figure(f"{name}.added_p50", f"added latency p50, {load}, ms", 2),
            Figure(f"{name}.added_p99", f"added latency p99, {load}, ms", 2),
            Figure(f"{name}.first_p50", f"first event p50, {load}, ms", 1),
            Figure(f"{name}.first_p99", f"first event p99, {load}, ms", 1),
            Figure(f"{name}.lost", f"streams lost, {load}", 0, has_ratio=False),
        ]
    opening = f"{sizes.storm.streams:,} streams opened at {sizes.storm.start_rate:.0f}/s"
    rows += [
        Figure("storm.added_p50", f"added latency p50 of open streams, {opening}, ms", 2),
        Figure("storm.added_p99", f"added latency p99 of open streams, {opening}, ms", 2),
        Figure("storm.first_p50", f"first event p50, {opening}, ms", 1),
        Figure("storm.first_p99", f"first event p99, {opening}, ms", 1),
        Figure("storm.lost", f"streams lost, {opening}", 0, has_ratio=False),
    ]
    capacity = f"{sizes.capacity:,} streams in one process"
    rows += [
        Figure("capacity.open", f"{capacity}: open after {sizes.capacity_seconds:.0f} s", 0, has_ratio=False),
        Figure("capacity.refused", f"{capacity}: refused", 0, has_ratio=False),
        Figure("capacity.dropped", f"{capacity}: dropped or failed", 0, has_ratio=False),
        Figure("capacity.completed", f"{capacity}: completed", 0, has_ratio=False),
    ]
    return rows


def medians(results: Results) -> dict[tuple[str, str], float]:
    """The median of each server and figure."""
    values: dict[tuple[str, str], list[float]] = {}
    for result in results:
        for name, value in result["figures"].items():
            values.setdefault((result["server"], name), []).append(value)
    return {key: median(rounds) for key, rounds in values.items()}


def markdown(results: Results, servers: Sequence[str], sizes: Sizes) -> str:
    """One row per figure, one column per server; in brackets, ours divided by theirs."""
    values = medians(results)
    lines = [f"| | {' | '.join(servers)} |", f"|---|{'---:|' * len(servers)}"]
    for figure in figures(sizes):
        cells = [_cell(values, server, figure) for server in servers]
        if any(cell != "–" for cell in cells):
            lines.append(f"| {figure.label} | {' | '.join(cells)} |")
    return "\n".join(lines + _notes(results, values))


def _cell(values: Mapping[tuple[str, str], float], server: str, figure: Figure) -> str:
    value = values.get((server, figure.name))
    if value is None:
        return "–"
    text = f"{value:,.{figure.digits}f}" + _mark(values, server, figure)
    ours = values.get(("ours", figure.name))
    if server == "ours" or ours is None or not value or not figure.has_ratio:
        return text
    return f"{text} ({ours / value:.2f}×)"


def _mark(values: Mapping[tuple[str, str], float], server: str, figure: Figure) -> str:
    scenario = figure.name.partition(".")[0]
    if values.get((server, f"{scenario}.kept_up"), 1.0) < 0.95 and "added" in figure.name:
        return " ‡"
    return " *" if values.get((server, f"{scenario}.driver_saturated")) else ""


def _notes(results: Results, values: Mapping[tuple[str, str], float]) -> list[str]:
    notes = ["", "(…×): ours divided by theirs."]
    if any(name.endswith("driver_saturated") and value for (_, name), value in values.items()):
        notes.append("\\*: the driver was the bottleneck; the server had capacity left.")
    if any(name.endswith("kept_up") and value < 0.95 for (_, name), value in values.items()):
        notes.append("‡: fell behind: fewer than 95 % of the events sent arrived in time.")
    problems = sorted({f"{r['server']}, {r['scenario']}: {r['problem']}." for r in results if r["problem"]})
    return notes + [f"\n{problem}" for problem in problems]


def write(text: str) -> None:
    """Replaces the text between the README's two markers."""
    readme = README.read_text(encoding="utf-8")
    block = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    README.write_text(block.sub(lambda _: f"{BEGIN}\n\n{text}\n\n{END}", readme), encoding="utf-8")
