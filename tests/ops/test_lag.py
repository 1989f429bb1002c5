import pytest

from bff.ops import lag
from bff.ops.lag import LagMonitor
from tests.live import eventually


@pytest.fixture
def beating(monkeypatch):
    monkeypatch.setattr(lag, "BEAT_SECONDS", 0.01)
    return LagMonitor()


def test_a_process_that_gets_round_to_everything_has_a_pulse(beating):
    beating.start()
    first = beating._beat_at

    assert eventually(lambda: beating._beat_at > first, 15)
    assert beating.is_there()


def test_whoever_asks_first_starts_it():
    assert LagMonitor().is_there()


def test_without_a_beat_for_long_it_is_not_there(monkeypatch):
    monkeypatch.setattr(lag, "BEAT_SECONDS", 3600.0)
    starved = LagMonitor()
    starved.start()

    starved._beat_at -= lag.STILL_SECONDS + 1

    assert not starved.is_there()
