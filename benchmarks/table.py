"""Raw results → medians, ratios, one table in Markdown."""

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
"""One for each server, scenario and round: `server`, `scenario`, `figures` (name → number), `problem` (a sentence or "")."""


class Figure(NamedTuple):
    name: str
    label: str
    digits: int
    ratio: bool = True
    """Whether ours against theirs says anything: a count of losses has no ratio."""


def figures(sizes: Sizes) -> list[Figure]:
    rows = [
        Figure("starts.cpu_ms", "CPU per stream started and ended, ms", 2),
        Figure("start_rate.per_second", "starts per second, p99 of the first event under 250 ms", 0),
        Figure("100x200.cpu_us", "CPU per event, 100 streams × 200/s, µs", 1),
        Figure("saturation.cpu_us", f"CPU per event, {sizes.saturating} streams saturated, µs", 1),
        Figure("saturation.events_per_second", "events per second, saturated", 0),
        Figure("saturation.added_p99", "added latency p99, saturated, ms", 1),
        Figure("starts.seconds", "from the process's start to its first answer, s", 2),
        Figure("idle2000.empty_mib", "memory of the process after its first answer, MiB", 1),
    ]
    for name, streams in sizes.idle.items():
        rows.append(Figure(f"{name}.stream_kib", f"memory per idle stream, {streams:,} open, KiB", 1))
    for name, fan in sizes.fans.items():
        load = f"{fan.streams:,} streams × {fan.rate}/s"
        rows += [
            Figure(f"{name}.added_p50", f"added latency p50, {load}, ms", 2),
            Figure(f"{name}.added_p99", f"added latency p99, {load}, ms", 2),
            Figure(f"{name}.first_p50", f"first event p50, {load}, ms", 1),
            Figure(f"{name}.first_p99", f"first event p99, {load}, ms", 1),
            Figure(f"{name}.lost", f"streams lost, {load}", 0, ratio=False),
        ]
    rows += [
        Figure("held.open", f"{sizes.held:,} streams in one process: open after {sizes.held_seconds:.0f} s", 0, ratio=False),
        Figure("held.refused", f"{sizes.held:,} streams in one process: refused", 0, ratio=False),
        Figure("held.dropped", f"{sizes.held:,} streams in one process: dropped or failed", 0, ratio=False),
        Figure("held.completed", f"{sizes.held:,} streams in one process: ended with their answer", 0, ratio=False),
    ]
    return rows


def medians(results: Results) -> dict[tuple[str, str], float]:
    """By server and figure."""
    found: dict[tuple[str, str], list[float]] = {}
    for result in results:
        for name, value in result["figures"].items():
            found.setdefault((result["server"], name), []).append(value)
    return {key: median(values) for key, values in found.items()}


def markdown(results: Results, servers: Sequence[str], sizes: Sizes) -> str:
    """A row a figure, a column a server; behind each peer's number, ours divided by it."""
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
    if server == "ours" or ours is None or not value or not figure.ratio:
        return text
    return f"{text} ({ours / value:.2f}×)"


def _mark(values: Mapping[tuple[str, str], float], server: str, figure: Figure) -> str:
    scenario = figure.name.partition(".")[0]
    if values.get((server, f"{scenario}.kept_up"), 1.0) < 0.95 and "added" in figure.name:
        return " ‡"
    return " *" if values.get((server, f"{scenario}.driver_full")) else ""


def _notes(results: Results, values: Mapping[tuple[str, str], float]) -> list[str]:
    notes = ["", "(…×): ours divided by theirs."]
    if any(name.endswith("driver_full") and value for (_, name), value in values.items()):
        notes.append("\\*: the driver was the limit; the server had room left.")
    if any(name.endswith("kept_up") and value < 0.95 for (_, name), value in values.items()):
        notes.append("‡: fell behind: fewer than 95 % of the events that were sent came through in time.")
    problems = sorted({f"{r['server']}, {r['scenario']}: {r['problem']}." for r in results if r["problem"]})
    return notes + [f"\n{problem}" for problem in problems]


def write(text: str) -> None:
    """Puts `text` between the README's two markers."""
    readme = README.read_text(encoding="utf-8")
    between = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    README.write_text(between.sub(lambda _: f"{BEGIN}\n\n{text}\n\n{END}", readme), encoding="utf-8")
