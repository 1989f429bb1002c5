"""Measures variants alternately, so that other load on the machine affects all of them alike, and prints their medians."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import TypeVar

Figures = Mapping[str, float]
"""By label."""
V = TypeVar("V")


def measure_interleaved(scenarios: Iterable[Callable[[V], Figures]], variants: Mapping[str, V], rounds: int) -> None:
    """Prints each figure to stderr as it is measured, and finally a Markdown table; ratios are to the first variant."""
    measured: dict[str, dict[str, list[float]]] = {}
    scenarios = list(scenarios)
    for number in range(rounds):
        for scenario in scenarios:
            for name, variant in variants.items():
                figures = scenario(variant)
                print(number + 1, name, json.dumps(figures, ensure_ascii=False), file=sys.stderr, flush=True)
                for label, value in figures.items():
                    measured.setdefault(label, {}).setdefault(name, []).append(value)
    for label, values in measured.items():
        print(_row(label, [median(values[name]) for name in variants]))


def rounds_argument(position: int, default: int) -> int:
    """The number of rounds from the command line's argument at `position`."""
    return int(sys.argv[position]) if len(sys.argv) > position else default


def _row(label: str, values: list[float]) -> str:
    first, *others = values
    ratios = [f"{other / first:.2f}×" if first else "–" for other in others]
    return f"| {' | '.join([label, *(f'{value:.4g}' for value in values), *ratios])} |"
