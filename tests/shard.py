"""A pytest plugin: `-p tests.shard --shard 1/2` runs every second test.

It splits the run under gevent over processes, as pytest-xdist's workers read their pipes with calls that block gevent's hub.
"""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shard", default="1/1", help="NUMBER/COUNT: which part of the tests to run")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """After the tests that do not run at all were deselected."""
    number, count = (int(part) for part in config.getoption("--shard").split("/"))
    config.hook.pytest_deselected(items=[item for index, item in enumerate(items) if index % count != number - 1])
    items[:] = items[number - 1 :: count]
