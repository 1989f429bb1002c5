"""Redis fails over to a replica while replies run: each is whole, and all readers of one receive the same end."""

import signal
import time
from collections.abc import Callable, Iterator

import pytest

from bff.ops.redis import connect
from tests.faults.engine import question
from tests.faults.load import Clients, Stream, all_done
from tests.faults.reply_checks import add_readers, assert_sequential, assert_stored_as_received
from tests.faults.test_redis import Fleet, assert_ended_once
from tests.faults.test_webhooks_killed import SETTINGS as WEBHOOK_SETTINGS
from tests.faults.test_webhooks_killed import Receiver
from tests.live import Browser, eventually
from tests.redis_server import RedisServer
from tests.redis_sets import FAIL_OVER_MS, Cluster, RedisSet, SentinelSet, execute
from tests.wire_server import WireServer

USERS, TURNS = 24, 2
WEBHOOKS = 120
LEASE_SECONDS = "60"
"""Longer than a fail-over: an expired lease would interrupt a reply."""
SLOW_FAIL_OVER_MS = 6000
"""Long enough for readiness to be checked meanwhile: its result is cached for two seconds."""
DEADLINE = 60.0

pytestmark = [pytest.mark.live, pytest.mark.timeout(150)]


@pytest.fixture(params=["sentinels", "cluster"])
def redis_set(request) -> Iterator[RedisSet]:
    """Complete before and after the test."""
    servers: RedisSet = request.getfixturevalue(request.param)
    servers.flush()
    yield servers
    for node in servers.nodes:
        node.thaw()
        if node.process.poll() is not None:
            node.start()
    servers.fail_over_after(FAIL_OVER_MS)
    servers.wait_until_complete()


@pytest.fixture
def fleet(tmp_path, engine, redis_set) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, ENGINE_BASE_URL=engine.url, REDIS_URL=redis_set.url, LEASE_SECONDS=LEASE_SECONDS)
    yield fleet
    fleet.crash()


def kill(node: RedisServer) -> None:
    node.stop(signal.SIGKILL)


def restart_one_after_the_other(servers: RedisSet) -> None:
    for node in servers.nodes:
        if node in servers.primaries():
            fail_over(servers, kill, node)
        else:
            kill(node)
        servers.revive(node)


def fail_over(servers: RedisSet, end: Callable[[RedisServer], None], node: RedisServer | None = None) -> RedisServer:
    if isinstance(servers, SentinelSet):
        return servers.fail_over(end)
    assert isinstance(servers, Cluster)
    return servers.fail_over_node(node or servers.primaries()[0], end)


def kill_primary(servers: RedisSet) -> None:
    servers.revive(fail_over(servers, kill))


def freeze_primary(servers: RedisSet) -> None:
    """Like a partition: the old primary returns, is still one for a moment, and becomes a replica."""
    fail_over(servers, RedisServer.freeze).thaw()
    servers.wait_until_complete()


def send_messages(clients: Clients) -> list[Stream]:
    return [
        clients.send(question(f"{user}/{turn}", 20, interval=0.15, delay=0.2), f"user-{user}")
        for turn in range(TURNS)
        for user in range(USERS)
    ]


@pytest.mark.parametrize("disturb", [kill_primary, freeze_primary, restart_one_after_the_other])
def test_replies_are_whole_after_a_failover(fleet, engine, redis_set, disturb):
    web = fleet.web(2)
    fleet.worker()
    fleet.worker()
    fleet.wait_until_ready()

    with Clients(web.port) as clients:
        streams = send_messages(clients)
        assert clients.wait_for(lambda: sum(bool(stream.text) for stream in streams) >= USERS // 2, DEADLINE)
        assert clients.wait_for(lambda: all(stream.message_id for stream in streams), DEADLINE)
        tabs, _ = add_readers(clients, streams)
        started_at = time.monotonic()
        disturb(redis_set)
        seconds = time.monotonic() - started_at
        assert clients.wait_for(all_done(streams + tabs), DEADLINE), [s.events[-2:] for s in streams if not s.end]

        whole = sum(stream.end == "complete" for stream in streams)
        print(f"{type(redis_set).__name__}, {disturb.__name__}: {whole} of {len(streams)} whole, {seconds:.1f} s")
        assert whole == len(streams), [
            (stream.message, stream.end, stream.events[-2:]) for stream in streams if stream.end != "complete"
        ]
        assert_ended_once(streams, engine)
        assert_sequential(streams)
        assert {tab.end for tab in tabs} == {"complete"}
        assert_stored_as_received(clients, streams)
        assert all(engine.calls[stream.message] == 1 for stream in streams), "none was answered twice"
    assert "Traceback" not in web.log + "".join(worker.log for worker in fleet.workers)


def test_readiness_names_the_missing_server_and_recovers(fleet, redis_set, request):
    web = fleet.web(1)
    fleet.worker()
    fleet.wait_until_ready()

    def state() -> tuple[int, str]:
        with Browser(web).request("GET", "/readyz") as reply:
            return reply.status, reply.json()["redis"]

    assert state() == (200, "ok")
    redis_set.fail_over_after(SLOW_FAIL_OVER_MS)
    node = redis_set.primaries()[0]
    kill(node)
    killed_at = time.monotonic()
    missing = eventually(lambda: state() == (503, "upstream_unavailable"), 10)
    print(f"{type(redis_set).__name__}: readiness fails after {time.monotonic() - killed_at:.1f} s")
    assert missing

    assert eventually(lambda: state() == (200, "ok"), DEADLINE), "after the fail-over"
    print(f"{type(redis_set).__name__}: ready again after {time.monotonic() - killed_at:.1f} s")
    assert "the redis is not ready: " in web.log


@pytest.mark.parametrize("redis_set", ["cluster"], indirect=True)
def test_a_moving_slot_loses_nothing(fleet, engine, cluster):
    """Slots move from one primary to another while their groups are in use: MOVED, ASK and TRYAGAIN."""
    web = fleet.web(2)
    fleet.worker()
    fleet.wait_until_ready()
    source, target, *_ = cluster.primaries()
    with Clients(web.port) as clients:
        streams = send_messages(clients)
        assert clients.wait_for(lambda: sum(bool(stream.text) for stream in streams) >= USERS // 2, DEADLINE)
        moved = cluster.move_slots_with_keys(source, target)
        assert clients.wait_for(all_done(streams), DEADLINE), [s.events[-2:] for s in streams if not s.end]

        assert moved > 5
        assert {stream.end for stream in streams} == {"complete"}
        assert_ended_once(streams, engine)
        assert_stored_as_received(clients, streams)
    with connect(target.url) as client:
        assert execute(client, "DBSIZE")


@pytest.mark.parametrize(
    ("redis_set", "disturb"), [("sentinels", freeze_primary), ("cluster", kill_primary)], indirect=["redis_set"]
)
def test_webhooks_are_delivered_after_a_failover(tmp_path, redis_set, disturb):
    receiver = Receiver()
    with WireServer(receiver) as server:
        settings = WEBHOOK_SETTINGS | {"WEBHOOK_URL": f"{server.url}/hook", "WEBHOOK_ALLOW_ORIGINS": server.url}
        fleet = Fleet(tmp_path, REDIS_URL=redis_set.url, **settings)
        try:
            web = fleet.web()
            fleet.worker()
            fleet.worker()
            fleet.wait_until_ready()
            with Clients(web.port) as clients:
                streams = [clients.send("hello", f"user-{number % USERS}") for number in range(WEBHOOKS)]
                assert clients.wait_for(lambda: len(receiver.accepted) > WEBHOOKS // 10, DEADLINE)
                disturb(redis_set)
                assert clients.wait_for(all_done(streams), DEADLINE)
            ids = {stream.message_id for stream in streams if stream.message_id}  # Some were refused with 504.
            assert len(ids) > WEBHOOKS // 2
            assert eventually(lambda: receiver.accepted >= ids, DEADLINE), len(ids - receiver.accepted)
            assert all(len(receiver.ids[message_id]) == 1 for message_id in ids)
        finally:
            fleet.crash()
