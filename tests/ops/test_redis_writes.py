"""A Redis that answers and takes no writes: a replica, a full one, one whose disk fails."""

import shutil

import pytest

from bff.broker.app import built
from bff.config.environment import load_settings
from bff.ops import health
from bff.ops.redis import Client, check_writes, connect
from tests.live import BROKER_KEY, eventually, new_app
from tests.redis_server import RedisServer

pytestmark = pytest.mark.live


@pytest.fixture
def own(tmp_path):
    """Of one test, which sets it up differently."""
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder) as server:
        yield server


@pytest.fixture
def admin(own):
    with connect(own.url) as client:
        yield client


@pytest.fixture
def state(own, monkeypatch):
    """What `/readyz` says of Redis, and with which status; a new write is due each time."""
    monkeypatch.setattr(health, "KEPT_SECONDS", 0.0)
    monkeypatch.setattr(health, "WRITE_SECONDS", 0.0)
    client = new_app(REDIS_URL=own.url, RUN_WORKER="0").test_client()

    def ask() -> tuple[int, str]:
        response = client.get("/readyz")
        return response.status_code, response.json["redis"]

    return ask


def make_replica(admin: Client) -> None:
    admin.replicaof("127.0.0.1", 9)


def make_primary(admin: Client) -> None:
    admin.replicaof("NO", "ONE")


def fill(admin: Client) -> None:
    admin.config_set("maxmemory-policy", "noeviction")
    admin.config_set("maxmemory", 1)


def give_room(admin: Client) -> None:
    admin.config_set("maxmemory", 0)


CASES = {
    "replica": (make_replica, make_primary, "upstream_unavailable"),
    "full": (fill, give_room, "server_full"),
}


@pytest.mark.parametrize(("spoil", "mend", "code"), CASES.values(), ids=CASES)
def test_a_process_is_unready_while_redis_takes_no_writes(state, admin, spoil, mend, code):
    assert state() == (200, "ok")

    spoil(admin)
    assert eventually(lambda: state() == (503, code), 20)
    mend(admin)

    assert eventually(lambda: state() == (200, "ok"), 20)


def test_a_process_is_unready_while_redis_cannot_save(state, admin, own):
    admin.config_set("save", "3600 1")
    admin.set("chat:something", "to save")
    shutil.rmtree(own.folder)
    admin.bgsave()

    assert eventually(lambda: state() == (503, "upstream_unavailable"), 20)
    admin.config_set("save", "")  # Else it would not stop without having saved.


def test_a_broker_of_its_own_says_so_too(own, admin, monkeypatch):
    monkeypatch.setattr(health, "WRITE_SECONDS", 0.0)
    client = built(load_settings({"REDIS_URL": own.url, "RUN_WORKER": "0"}, neighbour=True), BROKER_KEY).test_client()
    assert client.get("/health").json["status"] == "degraded", "nobody answers here"

    make_replica(admin)

    assert eventually(lambda: client.get("/health").json["status"] == "unhealthy", 20)


def test_a_check_leaves_one_key_for_a_while(clean_redis):
    with connect(clean_redis.url) as client:
        check_writes(client)
        check_writes(client)

        (key,) = client.keys("*")
        assert str(key).startswith("chat:ready:")
        assert 0 < client.ttl(key) <= 60
