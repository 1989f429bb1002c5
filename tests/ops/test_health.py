import threading

import pytest

from bff.errors import UpstreamTimeout, UpstreamUnavailable
from bff.ops import health
from bff.ops.health import Health, WriteProbe
from tests.live import in_parallel


def test_states_are_ok_or_the_error_code_of_the_probe():
    def fail() -> None:
        raise UpstreamTimeout

    assert Health({"broker": lambda: None, "engine": fail}).states() == {"broker": "ok", "engine": "upstream_timeout"}


def test_concurrent_calls_run_the_probes_once():
    calls: list[int] = []
    checks = Health({"broker": lambda: calls.append(1)})

    states = in_parallel(50, lambda _: checks.states())

    assert states == [{"broker": "ok"}] * 50
    assert len(calls) == 1


def test_previous_states_are_returned_while_a_slow_probe_runs(monkeypatch):
    monkeypatch.setattr(health, "CACHE_SECONDS", 0.0)
    go_on, entered = threading.Event(), threading.Event()
    go_on.set()

    def probe() -> None:
        entered.set()
        assert go_on.wait(20)

    checks = Health({"broker": probe})
    checks.states()
    go_on.clear()
    entered.clear()
    thread = threading.Thread(target=checks.states)
    thread.start()
    assert entered.wait(20)

    assert checks.states() == {"broker": "ok"}

    go_on.set()
    thread.join(20)


def test_probes_run_concurrently_and_a_slow_one_times_out(monkeypatch):
    monkeypatch.setattr(health, "PROBE_TIMEOUT_SECONDS", 2.0)
    release = threading.Event()

    def fail() -> None:
        raise UpstreamUnavailable

    states = Health({"engine": release.wait, "redis": lambda: None, "broker": fail}).states()
    release.set()

    assert states == {"engine": "upstream_timeout", "redis": "ok", "broker": "upstream_unavailable"}


def test_an_unexpected_exception_in_a_probe_is_an_internal_error():
    assert Health({"broker": lambda: None, "redis": {}.popitem}).states() == {"broker": "ok", "redis": "internal_error"}


def test_successful_writes_are_not_repeated_within_the_interval(monkeypatch):
    calls: list[str] = []
    probe = WriteProbe(lambda: calls.append("read"), lambda: calls.append("write"))

    for _ in range(3):
        probe()
    monkeypatch.setattr(health, "WRITE_INTERVAL_SECONDS", 0.0)
    probe()

    assert calls == ["read", "write", "read", "read", "read", "write"]


def test_a_failed_write_is_repeated_in_the_next_call():
    is_writable: list[bool] = []

    def write() -> None:
        if not is_writable:
            raise UpstreamUnavailable

    probe = WriteProbe(lambda: None, write)
    for _ in range(2):
        with pytest.raises(UpstreamUnavailable):
            probe()
    is_writable.append(True)
    probe()
    is_writable.clear()

    probe()


def test_there_is_no_write_after_a_failed_read():
    def fail() -> None:
        raise UpstreamTimeout

    writes: list[int] = []

    with pytest.raises(UpstreamTimeout):
        WriteProbe(fail, lambda: writes.append(1))()

    assert not writes
