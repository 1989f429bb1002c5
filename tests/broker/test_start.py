"""Start of the processes around the bundled broker: refusals, warnings and the number of workers."""

import pytest

from bff.db.database import Database
from tests.live import BROKER_KEY, Server, eventually

pytestmark = [pytest.mark.live, pytest.mark.timeout(60)]

PRODUCTION = {"APP_ENV": "production", "AUTH_MODE": "anonymous"}
SQLITE_WARNING = "REDIS_URL with SQLite: "


def test_a_worker_refuses_to_start_without_a_usable_database(tmp_path, clean_redis):
    urls = {"none": "sqlite:////proc/none/chat.db", "empty": f"sqlite:///{tmp_path}/empty.db"}
    servers = {
        name: Server("worker", tmp_path / name, REDIS_URL=clean_redis.url, DATABASE_URL=url, **PRODUCTION)
        for name, url in urls.items()
    }

    for server in servers.values():
        assert server.process.wait(30) == 3, server.log
        [line] = server.log.splitlines()
        assert line.startswith("DATABASE_URL cannot be used: ")
        assert line.endswith("Its tables are made by `flask chat db upgrade`.")
    assert "no such table" in servers["empty"].log


def test_sqlite_with_redis_is_warned_of_in_production(start, tmp_path, clean_redis):
    url = f"sqlite:///{tmp_path}/chat.db"
    database = Database(url)
    database.upgrade()
    database.close()
    environment = {"REDIS_URL": clean_redis.url, "DATABASE_URL": url}

    for kind in ("worker", "gunicorn"):
        assert start(kind, **environment, **PRODUCTION).log.count(SQLITE_WARNING) == 1
        assert SQLITE_WARNING not in start(kind, **environment).log


@pytest.mark.parametrize("broker", [{}, {"BROKER_BASE_URL": "http://127.0.0.1:9", "BROKER_API_KEY": BROKER_KEY}])
def test_without_redis_there_is_one_web_process_with_any_broker(start, broker):
    server = start("gunicorn", WEB_CONCURRENCY="2", **broker)

    assert len(server.children) == 1
    assert "One process and not WEB_CONCURRENCY=2" in server.log


def test_with_redis_there_are_several_web_processes(start, clean_redis):
    external = {"BROKER_BASE_URL": "http://127.0.0.1:9", "BROKER_API_KEY": BROKER_KEY}
    server = start("gunicorn", WEB_CONCURRENCY="2", REDIS_URL=clean_redis.url, **external)

    assert eventually(lambda: len(server.children) == 2, 20)
