import pytest

from bff.ops import lag
from bff.ops.lag import LagMonitor
from tests.live import eventually


@pytest.fixture
def monitor(monkeypatch):
    monkeypatch.setattr(lag, "BEAT_SECONDS", 0.01)
    return LagMonitor()


def test_beats_continue_in_a_responsive_process(monitor):
    monitor.start()
    first = monitor._beat_at

    assert eventually(lambda: monitor._beat_at > first, 15)
    assert monitor.is_responsive()


def test_the_first_check_starts_the_monitor():
    assert LagMonitor().is_responsive()


def test_a_process_without_recent_beats_is_stalled(monkeypatch):
    monkeypatch.setattr(lag, "BEAT_SECONDS", 3600.0)
    stalled = LagMonitor()
    stalled.start()

    stalled._beat_at -= lag.STALLED_SECONDS + 1

    assert not stalled.is_responsive()
