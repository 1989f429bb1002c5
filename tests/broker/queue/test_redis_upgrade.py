"""Keys that an earlier version has left in Redis: its schedule had one part, `chat:due` and `chat:fleeting`."""

import time

import pytest

from bff.broker.queue.base import Limits
from bff.broker.queue.redis import RedisQueue, presence
from bff.broker.queue.redis.keys import part_of
from bff.ops.redis import connect
from bff.ops.redis_keys import hash_user_id
from tests.broker.queue.queues import NO_WAIT, enqueue, new_message, read_log
from tests.live import DEADLINE, eventually

pytestmark = pytest.mark.servers
ANN = hash_user_id("ann")


@pytest.fixture
def client(clean_redis):
    with connect(clean_redis.url) as client:
        yield client


@pytest.fixture
def queue(clean_redis):
    queue = RedisQueue(connect(clean_redis.url), Limits(grace=0.5))
    yield queue
    queue.close()


def rename_to_old(client, name: str) -> None:
    client.rename(f"chat:{{{part_of(ANN)}}}:{name}", f"chat:{name}")


def test_groups_of_the_old_schedule_are_claimed(queue, client):
    message = enqueue(queue)
    rename_to_old(client, "due")

    claim = queue.claim(NO_WAIT)

    assert claim is not None
    assert claim.message == message
    assert not client.exists("chat:due")


def test_a_running_message_of_the_old_schedule_is_reaped(queue, client):
    message = enqueue(queue)
    claim = queue.claim(NO_WAIT)
    rename_to_old(client, "due")
    client.hset(f"chat:{{{ANN}}}:run", "until", 1)

    second_claim = queue.claim(NO_WAIT)

    assert (second_claim.message, second_claim.token) == (message, claim.token + 1)


def test_an_old_unread_message_is_cancelled(queue, client):
    message = enqueue(queue, cancel_on_disconnect=True)
    rename_to_old(client, "fleeting")

    assert eventually(lambda: queue.sweep() or read_log(queue, message).ended, DEADLINE)
    assert not client.exists("chat:fleeting")


def test_an_old_message_with_a_reader_is_not_cancelled(queue, client, monkeypatch):
    monkeypatch.setattr(presence, "PUBLISH_SECONDS", 0.05)
    message = new_message(cancel_on_disconnect=True)
    queue.enqueue(message, None, "enqueue")
    rename_to_old(client, "fleeting")

    with queue.subscribe(message.user_id, message.id, lambda: None):
        end = time.monotonic() + 1.5  # Three times the grace.
        assert eventually(lambda: queue.sweep() or time.monotonic() > end, DEADLINE)
        assert not read_log(queue, message).ended
