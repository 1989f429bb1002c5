from collections.abc import Iterator

import pytest

from tests.broker.queue.line import Line
from tests.redis_server import RedisServer


@pytest.fixture
def line(clean_redis: RedisServer) -> Iterator[Line]:
    with Line(clean_redis.port) as line:
        yield line
