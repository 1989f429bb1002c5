"""The bundled broker: keeps messages in order, has them answered, and logs every answer for whoever reads it.

A neighbour, spoken to over HTTP only: inside the web process (bff/upstream/http/in_process.py), or a process of its own
(`gunicorn 'bff.broker:create_broker()'`). With Redis its queue is everybody's, and a process may only answer
(`python -m bff.broker`).
"""

import logging
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bff.config import checks
from bff.config.environment import load_settings
from bff.config.settings import KEY_BYTES, Settings
from bff.errors import Draining, SettingsError, UpstreamUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask

    from bff.broker.queue.base import Queue
    from bff.broker.worker import Worker
    from bff.http.streams import StreamLimiter
    from bff.ops.connections import Connections
    from bff.ops.health import Probe
    from bff.ops.redis import Client
    from bff.services import Services
    from bff.upstream.http import InProcessService


def create_broker() -> "Flask":
    """What a process of its own needs: settings from the environment, whose key must be safe."""
    settings = _own_settings()
    key = settings.broker_api_key
    if len(key.encode()) < KEY_BYTES:
        _refuse(f"BROKER_API_KEY is required for a broker on a port of its own, {KEY_BYTES} bytes at least.")
    return built(settings, key, alone=True)


def built(
    settings: Settings,
    key: str,
    services: "Services | None" = None,
    client: "Client | None" = None,
    *,
    alone: bool = False,
) -> "Flask":
    """`key`: what callers show. Inside web it shares the engines there, whose history then has what is answered here,
    and the `client`. `alone`: it is a process of its own.
    """
    from flask import Flask

    from bff.broker.routes import Parts, register
    from bff.http.streams import StreamLimiter
    from bff.ops.connections import BoundedResponses, Connections
    from bff.ops.lifecycle import Lifecycle
    from bff.services import Services

    client = client or _redis(settings)
    queue = _queue(settings, client, journal=settings.journal_file(alone=alone))
    services = services or Services(settings)
    worker = _worker(settings, queue, services, claims=settings.run_worker)
    # Its readers come back; but what is being answered in memory would be lost, so they may stay while there is time.
    streams = StreamLimiter(settings.max_streams, settings.max_streams, farewell=Draining)
    connections = Connections(settings.slow_reader_seconds)
    app = Flask(__name__)
    app.wsgi_app = BoundedResponses(app.wsgi_app, connections)  # type: ignore[method-assign]
    start = partial(_start, queue, worker)
    lifecycle = Lifecycle(
        start, partial(_drain, settings, streams, connections, partial(_hand_over, queue, worker)), streams.__len__
    )
    if settings.journal_file(alone=alone):
        app.before_request(partial(_start_at_first_request, start))
    register(app, Parts(queue, worker, streams, key, settings, services.is_repeatable, _check_writes(client, queue), lifecycle))
    return app


def bundled_broker(settings: Settings, services: "Services", client: "Client | None") -> "InProcessService":
    """Inside this process. `client`: where REDIS_URL is set, the process's one."""
    from bff.upstream.http import InProcessService

    return InProcessService("broker", lambda key: built(settings, key, services, client))


def work() -> None:
    """A process that only answers, until it is told to stop. What waits is in Redis."""
    from bff.services import Services

    settings = _own_settings()
    if not settings.redis_url:
        _refuse("REDIS_URL is required for a worker: in any other process's memory it would find nothing.")
    if folder := settings.prometheus_multiproc_dir:
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    try:
        check(settings)
        _check_database(settings)
    except SettingsError as error:
        _refuse(str(error))
    worker = _worker(settings, _queue(settings), Services(settings))
    worker.start()
    log = logging.getLogger(__name__)
    for message in checks.warnings(settings):
        log.warning(message)
    log.info("answering what waits in Redis")
    told.wait()
    worker.drain(settings.drain_seconds)


def check(settings: Settings) -> None:
    """For a first start: later, what is away comes back. Raises SettingsError when Redis, or the database, cannot be used."""
    if settings.redis_url:
        from bff.ops import redis

        redis.check(settings.redis_url, verify=settings.redis_tls_verify)


def _redis(settings: Settings) -> "Client | None":
    if not settings.redis_url:
        return None
    from bff.ops import redis

    return redis.connect(settings.redis_url, verify=settings.redis_tls_verify)


def _check_writes(client: "Client | None", queue: "Queue") -> "Probe":
    """Whether what the queue is kept in takes writes. Memory without a journal always does."""
    from bff.broker.queue.memory import MemoryQueue

    if isinstance(queue, MemoryQueue):
        return queue.check_writes
    assert client is not None
    from bff.ops import health, redis

    return health.WriteProbe(partial(redis.ping, client), partial(redis.check_writes, client))


def _check_database(settings: Settings) -> None:
    """A worker without HTTP is asked by nobody whether it is ready. Raises SettingsError."""
    from bff.db.database import open_database
    from bff.db.store import ConversationStore

    database = open_database(settings)
    try:
        ConversationStore(database).check()
    except UpstreamUnavailable as error:
        raise SettingsError(
            f"DATABASE_URL cannot be used: {error.detail}. Its tables are made by `flask db upgrade`."
        ) from error
    finally:
        database.close()


def _queue(settings: Settings, client: "Client | None" = None, journal: Path | None = None) -> "Queue":
    """`journal`: the file of a queue in memory."""
    from bff.broker.queue.base import Limits

    limits = Limits(settings.queue_depth_per_user, settings.log_max_bytes, retention=settings.retention_seconds)
    if not settings.redis_url:
        from bff.broker.queue.journal import Journal
        from bff.broker.queue.memory import MemoryQueue

        return MemoryQueue(limits, journal=Journal(journal) if journal else None)
    from bff.broker.queue.redis import RedisQueue

    client = client or _redis(settings)
    assert client is not None
    return RedisQueue(client, limits, settings.lease_seconds)


def _worker(settings: Settings, queue: "Queue", services: "Services", *, claims: bool = True) -> "Worker":
    from bff.broker.engines import Engines
    from bff.broker.worker import Bounds, Times, Worker

    engines = Engines(services.engine, services.bundled_engine, services.external_broker, services.external_engine)
    times = Times(settings.answer_max_seconds, settings.lease_seconds)
    bounds = Bounds(settings.max_running, settings.max_streams)
    return Worker(queue, engines, times, bounds, claims=claims, keep_stopped=settings.keep_stopped)


def _start(queue: "Queue", worker: "Worker") -> None:
    """Idempotent. In memory nothing can be waiting before the first request, but in Redis and in a journal."""
    from bff.broker.queue.memory import MemoryQueue

    if isinstance(queue, MemoryQueue):
        if not queue.is_journalled:
            return
        queue.open()
    worker.start()


def _start_at_first_request(start: "Callable[[], None]") -> None:
    """Under a server that begins no app's life, such as `flask run`. A look at the health opens no file."""
    from flask import request

    from bff.broker.routes import OPEN

    if request.path not in OPEN:
        start()


def _hand_over(queue: "Queue", worker: "Worker", seconds: float) -> None:
    """In memory alone the worker works on: what its process has not answered nobody will."""
    from bff.broker.queue.memory import MemoryQueue

    memory = queue if isinstance(queue, MemoryQueue) else None
    if memory and not memory.is_journalled:
        worker.work_off(seconds)
        return
    if memory:
        memory.drain()
    worker.drain(seconds)
    if memory:
        memory.close()


def _drain(
    settings: Settings, streams: "StreamLimiter", connections: "Connections", hand_over: "Callable[[float], None]"
) -> None:
    from bff.ops.lifecycle import run_concurrently

    run_concurrently(settings.drain_seconds, streams.drain, connections.drain, hand_over)


def _own_settings() -> Settings:
    from bff.ops import memory
    from bff.ops.logging import configure_logging

    memory.unmap_large_blocks()
    try:
        settings = load_settings(neighbour=True)
    except SettingsError as error:
        _refuse(str(error))
    configure_logging(settings.log_level, settings.log_format, checks.secrets_of(settings))
    return settings


def _refuse(why: str) -> NoReturn:
    print(why, file=sys.stderr)
    sys.exit(3)
