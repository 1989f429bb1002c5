"""A pytest plugin: `-p tests.shard --shard 1/2` runs one half of the test files.

It splits the run under gevent over processes, as pytest-xdist's workers read their pipes with calls that block gevent's hub.
"""

from collections import Counter

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shard", default="1/1", help="NUMBER/COUNT: which part of the test files to run")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    number, count = (int(part) for part in config.getoption("--shard").split("/"))
    shards = shards_of(Counter(item.path.as_posix() for item in items), count)
    chosen = [item for item in items if shards[item.path.as_posix()] == number]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
    items[:] = chosen


def shards_of(tests: Counter[str], count: int) -> dict[str, int]:
    """The shard of each file, from 1: the largest files first, each to the shard that has the fewest tests."""
    sizes = dict.fromkeys(range(1, count + 1), 0)
    shards = {}
    for path, size in sorted(tests.items(), key=lambda entry: (-entry[1], entry[0])):
        shards[path] = min(sizes, key=sizes.__getitem__)
        sizes[shards[path]] += size
    return shards
