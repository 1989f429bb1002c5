from contextlib import suppress
from time import monotonic

import pytest

from bff.errors import TooManyRequests
from bff.ops import rate_limiter
from bff.ops.rate_limiter import RateLimiter
from tests.live import eventually


def test_a_user_has_so_many_a_minute():
    users = RateLimiter(3)
    for _ in range(3):
        users.acquire("ada")

    with pytest.raises(TooManyRequests) as refused:
        users.acquire("ada")

    assert 55 <= refused.value.retry_after <= 60
    users.acquire("bob")


def test_who_comes_back_when_told_to_finds_room(monkeypatch):
    monkeypatch.setattr(rate_limiter, "MINUTE", 1.4)
    users = RateLimiter(1)
    users.acquire("ada")

    with pytest.raises(TooManyRequests) as refused:
        users.acquire("ada")

    assert refused.value.retry_after == 2


def counted(users: RateLimiter) -> tuple[float, float] | None:
    """The moments before and after she was counted; None if she was refused."""
    before = monotonic()
    with suppress(TooManyRequests):
        users.acquire("ada")
        return before, monotonic()
    return None


def test_there_is_room_again_after_a_minute(monkeypatch):
    monkeypatch.setattr(rate_limiter, "MINUTE", 0.3)
    users = RateLimiter(2)

    moments = [eventually(lambda: counted(users)) for _ in range(6)]

    assert all(moments)
    for first, third in zip(moments, moments[2:], strict=False):
        assert third[1] - first[0] >= 0.3


def test_who_is_refused_waits_no_longer_for_asking_again(monkeypatch):
    monkeypatch.setattr(rate_limiter, "MINUTE", 0.3)
    users, began = RateLimiter(1), monotonic()
    users.acquire("ada")

    assert eventually(lambda: counted(users))

    assert monotonic() - began >= 0.3
