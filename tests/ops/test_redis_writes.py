"""Health checks of a Redis that replies but rejects writes: a replica, a full one, one that cannot save."""

import shutil

import pytest

from bff.broker.app import build_broker
from bff.config.environment import load_settings
from bff.ops import health
from bff.ops.redis import Client, connect
from bff.ops.redis_check import check_use
from tests.live import BROKER_KEY, eventually, new_app
from tests.redis_server import RedisServer

pytestmark = pytest.mark.live


@pytest.fixture
def server(tmp_path):
    """A Redis for one test, which reconfigures it."""
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder) as server:
        yield server


@pytest.fixture
def admin(server):
    with connect(server.url) as client:
        yield client


@pytest.fixture
def state(server, monkeypatch):
    """Reads the status of `/readyz` and its state of Redis; each call performs a write check."""
    monkeypatch.setattr(health, "CACHE_SECONDS", 0.0)
    monkeypatch.setattr(health, "WRITE_INTERVAL_SECONDS", 0.0)
    client = new_app(REDIS_URL=server.url, RUN_WORKER="0").test_client()

    def read() -> tuple[int, str]:
        response = client.get("/readyz")
        return response.status_code, response.json["redis"]

    return read


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


@pytest.mark.parametrize(("break_redis", "repair", "code"), CASES.values(), ids=CASES)
def test_readyz_fails_while_redis_rejects_writes(state, admin, break_redis, repair, code):
    assert state() == (200, "ok")

    break_redis(admin)
    assert eventually(lambda: state() == (503, code), 20)
    repair(admin)

    assert eventually(lambda: state() == (200, "ok"), 20)


def test_readyz_fails_while_redis_cannot_save(state, admin, server):
    admin.config_set("save", "3600 1")
    admin.set("chat:something", "to save")
    shutil.rmtree(server.folder)
    admin.bgsave()

    assert eventually(lambda: state() == (503, "upstream_unavailable"), 20)
    admin.config_set("save", "")  # Otherwise Redis does not stop, as it cannot save.


def test_a_standalone_broker_is_unhealthy_while_redis_rejects_writes(server, admin, monkeypatch):
    monkeypatch.setattr(health, "WRITE_INTERVAL_SECONDS", 0.0)
    client = build_broker(
        load_settings({"REDIS_URL": server.url, "RUN_WORKER": "0"}, backend_only=True), BROKER_KEY
    ).test_client()
    assert client.get("/health").json["status"] == "degraded", "no worker runs here"

    make_replica(admin)

    assert eventually(lambda: client.get("/health").json["status"] == "unhealthy", 20)


def test_a_write_check_leaves_one_key_that_expires(clean_redis):
    with connect(clean_redis.url) as client:
        check_use(client)
        check_use(client)

        (key,) = client.keys("*")
        assert str(key).startswith("chat:ready:")
        assert 0 < client.ttl(key) <= 60
