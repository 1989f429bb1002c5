"""Builds the bundled broker, as an app or as a worker process.

The app runs inside the web process (bff/upstream/http/in_process.py) or in a process of its own
(`gunicorn 'bff.broker:create_broker()'`); both are called over HTTP only. With Redis all processes share one queue, and
`python -m bff.broker` is a process that only runs messages.
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
from bff.errors import ChatError, Draining, SettingsError, UpstreamUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flask import Flask

    from bff.broker.queue.base import Queue
    from bff.broker.worker import Worker
    from bff.http.streams import StreamLimiter
    from bff.ops.connections import Connections
    from bff.ops.redis import Client
    from bff.services import Services
    from bff.upstream.http import InProcessService


def create_broker() -> "Flask":
    """The broker as a process of its own, with settings from the environment. Exits with status 3 if they are invalid."""
    from bff.ops.lifecycle import register

    settings = _load_settings()
    key = settings.broker_api_key
    if len(key.encode()) < KEY_BYTES:
        _exit(f"BROKER_API_KEY is required for a broker on a port of its own, {KEY_BYTES} bytes at least.")
    app = build_broker(settings, key, standalone=True)
    register(app.extensions["chat_bff"].lifecycle)
    return app


def build_broker(
    settings: Settings,
    key: str,
    services: "Services | None" = None,
    client: "Client | None" = None,
    *,
    standalone: bool = False,
) -> "Flask":
    """`key`: the X-API-Key of callers. `services` and the Redis `client` are the web process's, where it runs inside one.

    `standalone`: it is a process of its own.
    """
    from flask import Flask

    from bff.broker.routes import Parts, register
    from bff.http.streams import StreamLimiter
    from bff.ops.connections import BoundedResponses, Connections
    from bff.ops.lifecycle import Lifecycle
    from bff.services import Services

    queue = _create_queue(settings, client, journal=settings.journal_file(standalone=standalone))
    services = services or Services(settings)
    worker = _create_worker(settings, queue, services, claims=settings.run_worker)
    # Not resumable: readers can reconnect, but replies in memory would be lost, so streams stay open while there is time.
    streams = StreamLimiter(settings.max_streams, settings.max_streams, drain_error=Draining)
    connections = Connections(settings.slow_reader_seconds, settings.request_seconds)
    app = Flask(__name__)
    app.wsgi_app = BoundedResponses(app.wsgi_app, connections)  # type: ignore[method-assign]
    start = partial(_start, queue, worker)
    drain = partial(_drain, settings, streams, connections, partial(_stop_worker, queue, worker))
    lifecycle = Lifecycle(start, drain, streams.__len__)
    if settings.journal_file(standalone=standalone):
        app.before_request(partial(_start_at_first_request, start))
    register(app, Parts(queue, worker, streams, key, settings, services.is_repeatable, lifecycle))
    return app


def bundled_broker(settings: Settings, services: "Services", client: "Client | None") -> "InProcessService":
    """The broker inside this process. `client`: the process's Redis client, if REDIS_URL is set."""
    from bff.upstream.http import InProcessService

    return InProcessService("broker", lambda key: build_broker(settings, key, services, client))


def run_worker() -> None:
    """A process that runs queued messages until SIGTERM or SIGINT. Exits with status 3 if its settings are invalid."""
    from bff.services import Services

    settings = _load_settings()
    if not settings.redis_url:
        _exit("REDIS_URL is required for a worker: in any other process's memory it would find nothing.")
    if folder := settings.prometheus_multiproc_dir:
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        check(settings)
        _check_database(settings)
    except SettingsError as error:
        _exit(str(error))
    queue = _create_queue(settings)
    worker = _create_worker(settings, queue, Services(settings))
    worker.start()
    log = logging.getLogger(__name__)
    for message in (*checks.warnings(settings), *_queue_problems(queue)):
        log.warning(message)
    log.info("answering the messages queued in Redis")
    stop.wait()
    worker.drain(settings.drain_seconds)


def _queue_problems(queue: "Queue") -> "Iterator[str]":
    """A worker has no `/readyz` that would report them. It starts nevertheless, as they may be temporary."""
    try:
        queue.check_writes()
    except ChatError as error:
        yield f"REDIS_URL cannot be used: {error.detail}."


def check(settings: Settings) -> None:
    """Raises SettingsError if REDIS_URL is set and cannot be used. For startup only: later outages are waited out."""
    if settings.redis_url:
        from bff.ops import redis

        redis.check(settings.redis_url, verify=settings.redis_tls_verify)


def _check_database(settings: Settings) -> None:
    """A worker has no `/readyz` that would report it. Raises SettingsError."""
    from bff.db.database import open_database
    from bff.db.store import ConversationStore

    database = open_database(settings)
    try:
        ConversationStore(database).check()
    except UpstreamUnavailable as error:
        raise SettingsError(
            f"DATABASE_URL cannot be used: {error.detail}. Its tables are made by `flask chat db upgrade`."
        ) from error
    finally:
        database.close()


def _create_queue(settings: Settings, client: "Client | None" = None, journal: Path | None = None) -> "Queue":
    """`client`: the process's Redis client, if it has one. `journal`: the file of a queue in memory."""
    from bff.broker.queue.base import Limits

    limits = Limits(
        settings.queue_depth_per_user,
        settings.log_max_bytes,
        retention=settings.retention_seconds,
        grace=settings.disconnect_grace_seconds,
    )
    if not settings.redis_url:
        from bff.broker.queue.journal import Journal
        from bff.broker.queue.memory import MemoryQueue

        return MemoryQueue(limits, journal=Journal(journal) if journal else None)
    from bff.broker.queue.redis import RedisQueue
    from bff.ops import redis

    client = client or redis.connect(settings.redis_url, verify=settings.redis_tls_verify)
    return RedisQueue(
        client,
        limits,
        settings.lease_seconds,
        prefix=settings.redis_prefix,
        deployment=settings.deployment(),
        delivery_lease=settings.webhook_seconds + settings.lease_seconds,
    )


def _create_worker(settings: Settings, queue: "Queue", services: "Services", *, claims: bool = True) -> "Worker":
    from bff.broker.engines import Engines
    from bff.broker.runner import Times
    from bff.broker.webhooks.deliverer import Deliverer
    from bff.broker.webhooks.sending import Sender
    from bff.broker.worker import Bounds, Worker

    external = (services.external_broker, services.external_engine, services.open_replies)
    engines = Engines(services.engine, services.bundled_engine, *external)
    times = Times(settings.answer_max_seconds, settings.lease_seconds)
    bounds = Bounds(settings.max_running, settings.max_streams)
    deliverer = (
        Deliverer(queue.deliveries, Sender(settings), settings.webhook_retry_seconds) if settings.webhook_secret else None
    )
    return Worker(queue, engines, times, bounds, claims=claims, keep_stopped=settings.keep_stopped, deliverer=deliverer)


def _start(queue: "Queue", worker: "Worker") -> None:
    """Idempotent. A queue that does not survive a restart is empty: its worker starts with the first message."""
    if queue.survives_restart:
        queue.open()
        worker.start()


def _start_at_first_request(start: "Callable[[], None]") -> None:
    """For servers that do not call `Lifecycle.start`, such as `flask run`. Health checks do not open the journal."""
    from flask import request

    from bff.broker.routes import PUBLIC_PATHS, WEBHOOKS_PATH

    # A command that lists webhooks must not take the journal from the server, nor work it off.
    if request.path not in PUBLIC_PATHS and not request.path.startswith(WEBHOOKS_PATH):
        start()


def _stop_worker(queue: "Queue", worker: "Worker", seconds: float) -> None:
    if not queue.survives_restart:
        worker.work_off(seconds)
        return
    with queue.draining():
        worker.drain(seconds)


def _drain(
    settings: Settings, streams: "StreamLimiter", connections: "Connections", stop_worker: "Callable[[float], None]"
) -> None:
    from bff.ops.lifecycle import run_concurrently

    run_concurrently(settings.drain_seconds, streams.drain, connections.drain, stop_worker)


def _load_settings() -> Settings:
    from bff.ops import memory
    from bff.ops.logging import configure_logging

    memory.unmap_large_blocks()
    try:
        settings = load_settings(backend_only=True)
    except SettingsError as error:
        _exit(str(error))
    configure_logging(settings.log_level, settings.log_format, checks.secret_values(settings))
    return settings


def _exit(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(3)
