"""Redis Cluster while its nodes change: they join, move slots, leave, or are silent."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bff.broker.queue.redis.cluster_subscribers import ClusterSubscribers
from bff.errors import StorageUnavailable
from bff.ops import redis
from bff.ops.redis import connect
from tests.broker.queue.line import Line
from tests.live import eventually, in_parallel
from tests.redis_sets import Cluster, count_subscribers, execute

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

DEADLINE = 30.0
KEY = "chat:{x}:q"


@pytest.fixture
def three_nodes(tmp_path: Path) -> Iterator[Cluster]:
    """Without replicas; of this test only. No node counts as failed because the machine is busy."""
    with Cluster(tmp_path, replicas=0) as cluster:
        cluster.fail_over_after(60_000)
        yield cluster


def read(client: redis.Client, key: str) -> str | None:
    with redis.map_errors():
        return client.get(key)


def test_a_slot_that_moves_to_a_node_that_has_joined_is_followed(three_nodes):
    source = three_nodes.primary_of(KEY)
    with connect(three_nodes.url) as client:
        client.set(KEY, "text")
        new = three_nodes.add_node()
        with connect(source.url) as old, connect(new.url) as joined:
            slot = execute(old, "CLUSTER", "KEYSLOT", KEY)
            execute(joined, "CLUSTER", "SETSLOT", slot, "IMPORTING", execute(old, "CLUSTER", "MYID"))
            execute(old, "CLUSTER", "SETSLOT", slot, "MIGRATING", execute(joined, "CLUSTER", "MYID"))

        assert read(client, KEY) == "text"
        assert read(client, "chat:{x}:moved") is None


def test_a_connection_is_in_its_pool_once(three_nodes):
    """A call that was redirected releases its first connection twice if the second node fails."""
    with connect(three_nodes.url) as client:
        client.set(KEY, "text")
        pool = client.get_redis_connection(client.get_node_from_key(KEY)).connection_pool
        held, other = pool.get_connection(), pool.get_connection()

        for _ in range(2):
            pool.release(other)

        assert pool.get_connection() is not pool.get_connection()
        pool.release(held)


def test_calls_succeed_while_the_nodes_are_asked_for(three_nodes):
    with connect(three_nodes.url) as client:
        for number in range(4):
            client.set(f"chat:{{{number}}}:q", str(number))
        end = time.monotonic() + 2
        results: Counter[bool] = Counter()

        def call(number: int) -> None:
            while time.monotonic() < end:
                if number == 4:
                    client.refresh()
                    time.sleep(0.02)
                else:
                    results[read(client, f"chat:{{{number}}}:q") == str(number)] += 1

        in_parallel(5, call)

    assert results[True] > 100
    assert not results[False]


@pytest.mark.slow
def test_calls_do_not_wait_for_each_other_while_all_nodes_are_silent(three_nodes):
    with connect(three_nodes.url) as client:
        redis.ping(client)
        for node in three_nodes.nodes:
            node.freeze()
        durations: list[float] = []

        def call(number: int) -> None:
            started_at = time.monotonic()
            with suppress(StorageUnavailable):
                read(client, f"chat:{{{number}}}:q")
            durations.append(time.monotonic() - started_at)

        threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        in_time = eventually(lambda: len(durations) >= 3, 15)
        for node in three_nodes.nodes:
            node.thaw()
        for thread in threads:
            thread.join(DEADLINE)

    assert in_time, durations


def test_nodes_that_all_have_new_addresses_are_found_by_the_urls_name(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    with Cluster(tmp_path / "old", replicas=0) as old, Cluster(tmp_path / "new", replicas=0) as new, Line(0) as line:
        line.target = old.nodes[0].port
        with connect(f"redis+cluster://127.0.0.1:{line.port}") as client:
            redis.ping(client)
            for node in old.nodes:
                node.stop(signal.SIGKILL)
            line.target = new.nodes[0].port

            assert eventually(lambda: is_answered(client), DEADLINE)
        for node in old.nodes:
            node.start()


def is_answered(client: redis.Client) -> bool:
    with suppress(StorageUnavailable):
        redis.ping(client)
        return read(client, KEY) is None
    return False


@pytest.mark.slow
def test_a_subscriber_moves_on_when_its_node_leaves_the_cluster(three_nodes):
    received: list[str] = []
    with connect(three_nodes.url) as client:
        subscribers = ClusterSubscribers(client)
        subscribers.subscribe("chat:stop", received.append)
        node = eventually(lambda: next((node for node in three_nodes.nodes if count_subscribers(node, "chat:stop")), None))
        heir, other = (one for one in three_nodes.nodes if one is not node)
        three_nodes.remove_node(node, heir)
        client.refresh()  # As a call does that is redirected or fails.

        with connect(other.url) as publisher:
            assert eventually(lambda: (publisher.publish("chat:stop", "text"), "text" in received)[1], DEADLINE)
        subscribers.close()


def test_the_version_and_policy_are_those_of_all_nodes(three_nodes):
    with connect(three_nodes.nodes[2].url) as node:
        execute(node, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")

    with connect(three_nodes.url) as client:
        assert redis.about(client).policy == "allkeys-lru"
