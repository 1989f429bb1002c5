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
    """One that only a full collection finds."""
    monkeypatch.setattr(memory, "QUIET_SECONDS", 0.01)
    cycle = Cycle()
    found = weakref.ref(cycle)
    gc.collect()
    del cycle
    gc.collect(0)  # Something has happened since.
    thresholds = gc.get_threshold()
    gc.set_threshold(100_000, 100_000, 100_000)
    yield found
    gc.set_threshold(*thresholds)


@pytest.fixture
def collector():
    made = []

    def start(open_streams: int) -> None:
        made.append(QuietCollector(lambda: open_streams))
        made[-1].start()

    yield start
    for one in made:
        one.close()


def test_what_is_old_is_collected_while_few_streams_are_open(old_cycle, collector):
    collector(QUIET_STREAMS)

    assert eventually(lambda: old_cycle() is None)


def test_nobody_is_stopped_for_it_while_many_are_open(old_cycle, collector):
    collector(QUIET_STREAMS + 1)

    assert not eventually(lambda: old_cycle() is None, 0.2)
