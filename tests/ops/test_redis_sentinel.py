"""Sentinels that die or are silent while the primary works."""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bff.ops import redis, redis_sentinel
from bff.ops.redis import connect
from tests.live import eventually, in_parallel
from tests.redis_sets import SentinelSet

pytestmark = pytest.mark.live


@pytest.fixture
def own_sentinels(tmp_path: Path) -> Iterator[SentinelSet]:
    """Of this test only."""
    with SentinelSet(tmp_path) as sentinels:
        yield sentinels


def read(client: redis.Client) -> str | None:
    with redis.map_errors():
        return client.get("key")


def test_no_sentinel_is_forgotten_while_callers_look_for_one_that_answers(own_sentinels):
    first, *others = own_sentinels.sentinels
    with connect(own_sentinels.url) as client:
        read(client)
        first.stop(signal.SIGKILL)
        together = threading.Barrier(7)
        for _ in range(10):
            client.connection_pool.disconnect()
            in_parallel(7, lambda _: (together.wait(), read(client)))
        first.start()
        for sentinel in others:
            sentinel.stop(signal.SIGKILL)
        client.connection_pool.disconnect()

        assert eventually(lambda: read(client) is None)


def test_calls_do_not_wait_for_silent_sentinels_each_time(own_sentinels):
    with connect(own_sentinels.url) as client:
        read(client)
        for sentinel in own_sentinels.sentinels:
            sentinel.freeze()
        time.sleep(redis_sentinel.ASK_SECONDS)
        read(client)
        started_at = time.monotonic()
        for _ in range(5):
            read(client)

        assert time.monotonic() - started_at < 3, "three seconds for each of them"
