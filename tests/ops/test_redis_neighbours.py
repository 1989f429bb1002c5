"""Several deployments on one Redis: the doctor names them."""

import pytest

from bff.broker.queue.redis import RedisQueue
from bff.ops.redis import connect
from tests.broker.queue.queues import enqueue
from tests.live import new_app

pytestmark = pytest.mark.servers


def doctor(url: str, **settings: str) -> list[str]:
    app = new_app(REDIS_URL=url, RUN_WORKER="0", **settings)
    return app.test_cli_runner().invoke(args=["chat", "doctor"]).stdout.splitlines()


@pytest.fixture
def make_queue(clean_redis):
    queues: list[RedisQueue] = []

    def make(prefix: str, deployment: str = "") -> RedisQueue:
        queues.append(RedisQueue(connect(clean_redis.url), prefix=prefix, deployment=deployment))
        return queues[-1]

    yield make
    for queue in queues:
        queue.close()


def test_another_prefix_is_mentioned(make_queue, clean_redis):
    enqueue(make_queue("staging"))
    enqueue(make_queue("chat"))

    lines = [line for line in doctor(clean_redis.url) if "REDIS_PREFIX is" in line]

    assert len(lines) == 1
    assert lines[0].endswith("Other deployments share this Redis and its memory: their REDIS_PREFIX is staging.")
    assert "WRONG" not in lines[0]


def test_workers_of_another_deployment_with_our_prefix_are_wrong(make_queue, clean_redis):
    make_queue("chat", "another").sweep()

    wrong = [line for line in doctor(clean_redis.url) if line.startswith("WRONG")]

    assert len(wrong) == 1
    assert "Workers of another deployment use REDIS_PREFIX=chat here" in wrong[0]
    assert not [line for line in doctor(clean_redis.url, REDIS_PREFIX="own") if line.startswith("WRONG")]


def test_our_own_workers_are_fine(make_queue, clean_redis):
    settings = new_app(REDIS_URL=clean_redis.url, RUN_WORKER="0").extensions["chat_bff"].settings
    make_queue("chat", settings.deployment()).sweep()

    assert not [line for line in doctor(clean_redis.url) if line.startswith("WRONG")]
