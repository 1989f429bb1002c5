"""Processes die, Redis pauses, fills up, cuts connections and fails over, all in one run.

Every message ends once, and all readers of one message receive the same end, then and later.
"""

import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from bff.ops.redis import connect
from tests.faults.engine import Engine, question
from tests.faults.load import Clients, Stream, all_done
from tests.faults.reply_checks import add_readers, assert_reread
from tests.faults.test_failover import fail_over, kill
from tests.faults.test_redis import Fleet
from tests.live import Browser, Server, eventually, status_of
from tests.redis_server import RedisServer
from tests.redis_sets import RedisSet

SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS", "0"))
"""Repeats the test with other seeds for this long, in `make soak`."""
USERS, TURNS = 20, 3
DEADLINE = 60.0

pytestmark = [pytest.mark.live, pytest.mark.timeout(180 + 3 * SOAK_SECONDS)]


class Chaos:
    def __init__(self, fleet: Fleet, web: Server, servers: RedisServer | RedisSet, rng: random.Random) -> None:
        self.fleet, self.web, self.servers, self.rng = fleet, web, servers, rng
        self.log: list[str] = []

    @property
    def primaries(self) -> list[RedisServer]:
        return self.servers.primaries() if isinstance(self.servers, RedisSet) else [self.servers]

    def disturbances(self) -> list[Callable[[], None]]:
        """In random order."""
        actions = [self.kill_worker, self.kill_web_process, self.pause, self.cut_connections, self.fill] * 2
        actions += [self.fail_over] * isinstance(self.servers, RedisSet)
        self.rng.shuffle(actions)
        return actions

    def kill_worker(self) -> None:
        self.fleet.kill_random_worker(self.rng)

    def kill_web_process(self) -> None:
        with suppress(ProcessLookupError, IndexError):
            os.kill(self.rng.choice(self.web.children), signal.SIGKILL)

    def pause(self) -> None:
        """Shorter than the silence after which a set fails over."""
        server = self.rng.choice(self.primaries)
        server.freeze()
        time.sleep(self.rng.uniform(0.1, 0.6))  # The length of the fault.
        server.thaw()

    def cut_connections(self) -> None:
        """Some commands have run by then whose replies are lost."""
        for server in self.primaries:
            with connect(server.url) as client:
                for kind in ("pubsub", "normal"):
                    with suppress(Exception):  # It may cut its own connection.
                        client.client_kill_filter(_type=kind)

    def fill(self) -> None:
        for size in (1, 0):
            for server in self.primaries:
                with connect(server.url) as client:
                    client.config_set("maxmemory", size)
            time.sleep(0.3 * size)  # The length of the fault.

    def fail_over(self) -> None:
        assert isinstance(self.servers, RedisSet)
        self.servers.revive(fail_over(self.servers, kill))


@pytest.fixture(params=["clean_redis", "sentinels", "cluster"])
def servers(request) -> Iterator[RedisServer | RedisSet]:
    servers: RedisServer | RedisSet = request.getfixturevalue(request.param)
    servers.flush()
    yield servers
    for node in servers.nodes if isinstance(servers, RedisSet) else [servers]:
        node.thaw()
        if node.process.poll() is not None:
            node.start()
        with connect(node.url) as client:
            client.config_set("maxmemory", 0)
    if isinstance(servers, RedisSet):
        servers.wait_until_complete()


@pytest.fixture
def fleet(tmp_path, engine, servers) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, ENGINE_BASE_URL=engine.url, REDIS_URL=servers.url, LEASE_SECONDS="3")
    yield fleet
    fleet.crash()


def send_messages(clients: Clients, seed: int) -> list[Stream]:
    return [
        clients.send(question(f"{seed}/{user}/{turn}", 20, interval=0.15, delay=0.1), f"user-{seed}-{user}")
        for turn in range(TURNS)
        for user in range(USERS)
    ]


def assert_readers_agree(streams: list[Stream]) -> None:
    ends: defaultdict[str, set[str]] = defaultdict(set)
    for stream in streams:
        ends[stream.message_id].add(stream.end)
    assert not {message: found for message, found in ends.items() if len(found) > 1}


@pytest.mark.slow
def test_all_readers_of_a_message_receive_one_end(fleet, engine, servers):
    web = fleet.web(2)
    for _ in range(2):
        fleet.worker()
    fleet.wait_until_ready()
    deadline = time.monotonic() + SOAK_SECONDS
    seed = 0
    while seed == 0 or time.monotonic() < deadline:
        seed += 1
        run(Chaos(fleet, web, servers, random.Random(seed)), engine, seed)
    assert "Traceback" not in web.log


def run(chaos: Chaos, engine: Engine, seed: int) -> None:
    with Clients(chaos.web.port, seed) as clients:
        streams = send_messages(clients, seed)
        assert clients.wait_for(lambda: sum(bool(stream.text) for stream in streams) >= USERS // 2, DEADLINE)
        assert clients.wait_for(lambda: all(stream.message_id for stream in streams), DEADLINE)
        tabs, _ = add_readers(clients, streams)
        disturbances = chaos.disturbances()
        for number, disturb in enumerate(disturbances):
            for tab in tabs[number :: len(disturbances)]:
                clients.reset(tab)
            chaos.log.append(disturb.__name__)
            disturb()
            clients.wait_for(all_done(streams), chaos.rng.uniform(0.2, 1.0))
        assert clients.wait_for(all_done(streams + tabs), DEADLINE), (chaos.log, [s.events[-2:] for s in streams if not s.end])

        whole = sum(stream.end == "complete" for stream in streams)
        print(f"{seed}: {whole} of {len(streams)} complete, the others interrupted; {', '.join(chaos.log)}")
        assert {stream.end for stream in streams} <= {"complete", "interrupted"}
        assert_readers_agree(streams + tabs)
        assert_readers_agree(streams + assert_reread(clients, streams))


@pytest.mark.slow
def test_after_a_flush_everybody_is_told_and_can_go_on(fleet, engine, servers):
    web = fleet.web(2)
    fleet.worker()
    fleet.wait_until_ready()

    with Clients(web.port) as clients:
        streams = send_messages(clients, 1)
        assert clients.wait_for(lambda: sum(bool(stream.text) for stream in streams) >= USERS // 2, DEADLINE)
        tabs, _ = add_readers(clients, streams)
        servers.flush()
        assert clients.wait_for(all_done(streams + tabs), DEADLINE), [s.events[-2:] for s in streams if not s.end]
        lost = [stream for stream in streams + tabs if not stream.end]
        assert lost
        assert {stream.connections[-1].wire.status for stream in lost} == {404}

    for user in range(3):
        with Browser(web, f"user-1-{user}").say(question("again", 2)) as reply:
            assert status_of(reply) == 200
    assert eventually(lambda: "Traceback" not in web.log, 1)
