"""Counts of reaped and waiting messages."""

import pytest

from bff.broker.queue.base import LeaseLost, Message
from bff.broker.queue.redis import RedisQueue
from bff.ops.metrics import REAPED
from bff.ops.redis import connect
from tests.live import eventually


@pytest.fixture
def queue(clean_redis):
    queue = RedisQueue(connect(clean_redis.url), lease=0.2)
    yield queue
    queue.close()


def reaped(outcome: str) -> float:
    return REAPED.labels(outcome)._value.get()


def test_a_reaped_message_without_output_is_counted_as_again(queue, caplog):
    queue.enqueue(Message("m-1", "ada", {"message": "hello"}, trace="trace"), None, "enqueue")
    before = reaped("again")
    first = queue.claim(10)

    second_claim = eventually(lambda: queue.claim(1), 15)

    assert reaped("again") == before + 1
    assert second_claim.message == first.message
    assert second_claim.waited >= 0.2
    assert "the worker of message m-1 is gone: again" in caplog.text
    with pytest.raises(LeaseLost):
        queue.finish(first, [])


def test_a_reaped_message_with_output_is_counted_as_ended(queue):
    queue.enqueue(Message("m-1", "ada", {"message": "hello"}), None, "enqueue")
    before = reaped("ended")
    queue.append(queue.claim(10), [("message", "{}")])

    def is_reaped() -> bool:
        assert queue.claim(0.1) is None
        return reaped("ended") == before + 1

    assert eventually(is_reaped, 15)


def test_waiting_messages_are_counted_over_all_users(queue):
    for number in range(5):
        queue.enqueue(Message(f"m-{number}", f"user-{number % 2}", {"message": "hello"}), None, "enqueue")

    queue.claim(10)

    assert queue.waiting() == 4
