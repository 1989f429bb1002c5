import threading

import pytest

from bff.errors import UpstreamTimeout, UpstreamUnavailable
from bff.ops import health
from bff.ops.health import Health, WriteProbe
from tests.live import in_parallel


def test_what_answers_is_ok_and_what_does_not_has_its_code():
    def away() -> None:
        raise UpstreamTimeout

    assert Health({"broker": lambda: None, "engine": away}).states() == {"broker": "ok", "engine": "upstream_timeout"}


def test_many_who_ask_at_once_are_one_question():
    asked: list[int] = []
    looked = Health({"broker": lambda: asked.append(1)})

    states = in_parallel(50, lambda _: looked.states())

    assert states == [{"broker": "ok"}] * 50
    assert len(asked) == 1


def test_who_comes_while_a_slow_one_is_asked_gets_the_last_answer(monkeypatch):
    monkeypatch.setattr(health, "KEPT_SECONDS", 0.0)
    slow, asking = threading.Event(), threading.Event()
    slow.set()

    def probe() -> None:
        asking.set()
        assert slow.wait(20)

    looked = Health({"broker": probe})
    looked.states()
    slow.clear()
    asking.clear()
    waiting = threading.Thread(target=looked.states)
    waiting.start()
    assert asking.wait(20)

    assert looked.states() == {"broker": "ok"}

    slow.set()
    waiting.join(20)


def test_all_are_asked_at_once_and_the_slow_one_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(health, "PROBE_SECONDS", 2.0)
    over = threading.Event()

    def away() -> None:
        raise UpstreamUnavailable

    states = Health({"engine": over.wait, "redis": lambda: None, "broker": away}).states()
    over.set()

    assert states == {"engine": "upstream_timeout", "redis": "ok", "broker": "upstream_unavailable"}


def test_a_probe_that_breaks_itself_says_so():
    assert Health({"broker": lambda: None, "redis": {}.popitem}).states() == {"broker": "ok", "redis": "internal_error"}


def test_writes_are_rare_while_they_succeed(monkeypatch):
    done: list[str] = []
    probe = WriteProbe(lambda: done.append("read"), lambda: done.append("write"))

    for _ in range(3):
        probe()
    monkeypatch.setattr(health, "WRITE_SECONDS", 0.0)
    probe()

    assert done == ["read", "write", "read", "read", "read", "write"]


def test_a_write_that_failed_is_tried_again_at_once():
    takes_writes: list[bool] = []

    def write() -> None:
        if not takes_writes:
            raise UpstreamUnavailable

    probe = WriteProbe(lambda: None, write)
    for _ in range(2):
        with pytest.raises(UpstreamUnavailable):
            probe()
    takes_writes.append(True)
    probe()
    takes_writes.clear()

    probe()


def test_what_cannot_be_read_is_not_written_to():
    def away() -> None:
        raise UpstreamTimeout

    wrote: list[int] = []

    with pytest.raises(UpstreamTimeout):
        WriteProbe(away, lambda: wrote.append(1))()

    assert not wrote
