"""Deployments of the app shared by tests: one process, or several with one Redis."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.live import Server
from tests.redis_server import RedisServer

HIGH_LIMITS = {"MAX_STREAMS_PER_USER": "1000", "MESSAGES_PER_MINUTE": "100000"}


@contextmanager
def deployment(kind: str, folder: Path, redis: RedisServer | None = None, **settings: str) -> Iterator[Server]:
    """Yields the web server. A "fleet" has two web processes behind one port, and two workers."""
    settings = {**HIGH_LIMITS, "DATABASE_URL": f"sqlite:///{folder}/chat.db", **settings}
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
