"""`flask chat webhooks`: it reads the queue of a server that runs, or of one that does not."""

from pathlib import Path

import pytest

from bff.broker.queue.base import Limits, Message
from bff.broker.queue.deliveries import webhook_of
from bff.broker.queue.journal import Journal
from bff.broker.queue.memory import MemoryQueue
from bff.broker.queue.redis import RedisQueue
from bff.ops.redis import connect
from bff.upstream.message_ids import new_id
from tests.live import DEADLINE, eventually, new_app
from tests.redis_server import RedisServer

URL = "https://hooks.example/secret?token=t"


def run(*arguments: str, **settings: str) -> tuple[int, str]:
    result = new_app(**settings).test_cli_runner().invoke(args=["webhooks", *arguments])
    return result.exit_code, result.output


def add_delivery(queue: MemoryQueue | RedisQueue) -> str:
    """Adds a delivery whose first try has failed. Returns its id."""
    message = Message(new_id("home", "ada"), "ada", {}, webhook=webhook_of([URL], {"org_id": "home"}))
    queue.enqueue(message, None, "enqueue")
    queue.finish(queue.claim(DEADLINE), [("message", "{}")])
    delivery = queue.deliveries.claim(DEADLINE)
    queue.deliveries.retry(delivery, 3600, "the response was 500")
    return delivery.id


def test_nothing_is_listed_where_there_is_no_queue_yet(tmp_path: Path):
    assert run(QUEUE_FILE=f"{tmp_path}/queue.db") == (0, "No webhook waits or has failed.\n")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("runs", [True, False])
def test_webhooks_in_a_journal_are_listed_and_sent_again(tmp_path: Path, runs: bool):
    path = tmp_path / "queue.db"
    queue = MemoryQueue(journal=Journal(path))
    queue.open()
    delivery_id = add_delivery(queue)
    if not runs:
        queue.close()

    assert eventually(lambda: "1 try" in run(QUEUE_FILE=str(path))[1], DEADLINE)  # The queue commits a moment later.
    status, output = run(QUEUE_FILE=str(path))
    assert status == 0
    assert output.startswith(f"{delivery_id}  waiting, 1 try, the response was 500, next try 2")
    assert output.endswith(" to https://hooks.example\n")
    assert run("send", delivery_id, QUEUE_FILE=str(path)) == (0, "It is being sent.\n")
    assert run("send", "0" * 72, QUEUE_FILE=str(path))[0] == 1

    if not runs:
        queue = MemoryQueue(journal=Journal(path))
        queue.open()
    delivery = queue.deliveries.claim(DEADLINE)
    assert delivery is not None
    assert (delivery.id, delivery.tries) == (delivery_id, 0)
    queue.close()


def test_webhooks_in_redis_are_listed_and_sent_again(clean_redis: RedisServer):
    queue = RedisQueue(connect(clean_redis.url), Limits())
    delivery_id = add_delivery(queue)

    status, output = run(REDIS_URL=clean_redis.url, RUN_WORKER="0")
    assert (status, output.partition(",")[0]) == (0, f"{delivery_id}  waiting")
    assert run("send", delivery_id, REDIS_URL=clean_redis.url, RUN_WORKER="0") == (0, "It is being sent.\n")

    assert eventually(lambda: queue.deliveries.claim(0), DEADLINE).id == delivery_id
    queue.close()


def test_an_unreachable_queue_is_reported():
    status, output = run(REDIS_URL="redis://127.0.0.1:1", RUN_WORKER="0")

    assert status == 1
    assert "The queue cannot be read" in output
