import gc
import weakref

import pytest

from bff.ops import memory
from bff.ops.memory import QUIET_STREAMS, QuietCollector
from tests.live import eventually


class Cycle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def old_cycle(monkeypatch):
    """A weak reference to a cycle that only a full collection frees."""
    monkeypatch.setattr(memory, "QUIET_SECONDS", 0.01)
    cycle = Cycle()
    found = weakref.ref(cycle)
    gc.collect()
    del cycle
    gc.collect(0)  # Moves the counts of the older generations.
    thresholds = gc.get_threshold()
    gc.set_threshold(100_000, 100_000, 100_000)
    yield found
    gc.set_threshold(*thresholds)


@pytest.fixture
def collector():
    started = []

    def start(open_streams: int) -> None:
        started.append(QuietCollector(lambda: open_streams))
        started[-1].start()

    yield start
    for each in started:
        each.close()


def test_a_full_collection_runs_while_few_streams_are_open(old_cycle, collector):
    collector(QUIET_STREAMS)

    assert eventually(lambda: old_cycle() is None)


def test_no_full_collection_runs_while_many_streams_are_open(old_cycle, collector):
    collector(QUIET_STREAMS + 1)

    assert not eventually(lambda: old_cycle() is None, 0.2)
