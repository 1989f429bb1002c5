"""Variants of one thing, measured in turns, so that what else the machine does hits all of them alike; then their medians."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import TypeVar

Figures = Mapping[str, float]
"""By label."""
V = TypeVar("V")


def in_turns(scenarios: Iterable[Callable[[V], Figures]], variants: Mapping[str, V], rounds: int) -> None:
    """Prints each figure as it is found, and at last a table in Markdown; ratios are to the first variant."""
    found: dict[str, dict[str, list[float]]] = {}
    scenarios = list(scenarios)
    for number in range(rounds):
        for scenario in scenarios:
            for name, variant in variants.items():
                figures = scenario(variant)
                print(number + 1, name, json.dumps(figures, ensure_ascii=False), file=sys.stderr, flush=True)
                for label, value in figures.items():
                    found.setdefault(label, {}).setdefault(name, []).append(value)
    for label, values in found.items():
        print(_row(label, [median(values[name]) for name in variants]))


def rounds(at: int, default: int) -> int:
    """From the command line's argument number `at`."""
    return int(sys.argv[at]) if len(sys.argv) > at else default


def _row(label: str, values: list[float]) -> str:
    first, *others = values
    ratios = [f"{other / first:.2f}×" if first else "–" for other in others]
    return f"| {' | '.join([label, *(f'{value:.4g}' for value in values), *ratios])} |"
