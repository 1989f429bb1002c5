from contextlib import suppress
from time import monotonic

import pytest

from bff.errors import TooManyRequests
from bff.ops import rate_limiter
from bff.ops.rate_limiter import RateLimiter
from tests.live import eventually


def test_the_limit_applies_per_user():
    limiter = RateLimiter(3)
    for _ in range(3):
        limiter.acquire("ada")

    with pytest.raises(TooManyRequests) as refused:
        limiter.acquire("ada")

    assert 55 <= refused.value.retry_after <= 60
    limiter.acquire("bob")


def test_retry_after_is_rounded_up(monkeypatch):
    monkeypatch.setattr(rate_limiter, "MINUTE", 1.4)
    limiter = RateLimiter(1)
    limiter.acquire("ada")

    with pytest.raises(TooManyRequests) as refused:
        limiter.acquire("ada")

    assert refused.value.retry_after == 2


def acquired(limiter: RateLimiter) -> tuple[float, float] | None:
    """The times (monotonic) before and after a successful `acquire`; None if it was refused."""
    before = monotonic()
    with suppress(TooManyRequests):
        limiter.acquire("ada")
        return before, monotonic()
    return None


def test_requests_are_accepted_again_after_a_minute(monkeypatch):
    monkeypatch.setattr(rate_limiter, "MINUTE", 0.3)
    limiter = RateLimiter(2)

    intervals = [eventually(lambda: acquired(limiter)) for _ in range(6)]

    assert all(intervals)
    for first, third in zip(intervals, intervals[2:], strict=False):
        assert third[1] - first[0] >= 0.3


def test_refused_requests_do_not_count(monkeypatch):
    monkeypatch.setattr(rate_limiter, "MINUTE", 0.3)
    limiter, started_at = RateLimiter(1), monotonic()
    limiter.acquire("ada")

    assert eventually(lambda: acquired(limiter))

    assert monotonic() - started_at >= 0.3
