"""The app as it may stand in production, for tests that share one: a process, or many around one Redis."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.live import Server
from tests.redis_server import RedisServer

ROOM = {"MAX_STREAMS_PER_USER": "1000", "MESSAGES_PER_MINUTE": "100000"}


@contextmanager
def house(kind: str, folder: Path, redis: RedisServer | None = None, **settings: str) -> Iterator[Server]:
    """The web server. A "fleet" has two web processes behind its port, and two workers."""
    settings = {**ROOM, "DATABASE_URL": f"sqlite:///{folder}/chat.db", **settings}
    servers: list[Server] = []
    if redis is not None:
        settings |= {"REDIS_URL": redis.url, "WEB_CONCURRENCY": "2", "RUN_WORKER": "0"}
        servers = [Server("worker", folder / f"worker-{number}.log", **settings) for number in range(2)]
    web = Server("gunicorn" if kind == "fleet" else kind, folder / "web.log", **settings)
    try:
        for server in (*servers, web):
            server.wait_until_ready()
        yield web
    finally:
        for server in (*servers, web):
            server.kill()
        for server in (*servers, web):
            server.stop()
