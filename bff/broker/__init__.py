"""The bundled broker: keeps messages in order, has them answered, and logs every answer for whoever reads it.

A neighbour, spoken to over HTTP only: inside the web process on a loopback port, or a process of its own
(`gunicorn 'bff.broker:create_broker()'`).
"""

import sys
from functools import partial
from typing import TYPE_CHECKING

from bff.errors import Drained, SettingsError
from bff.settings import KEY_BYTES, Settings

if TYPE_CHECKING:
    from flask import Flask

    from bff.upstream import Service


def create_broker(settings: Settings | None = None, key: str = "", engine: "Service | None" = None) -> "Flask":
    """Without arguments, what a process of its own needs: settings from the environment, whose key must be safe."""
    from flask import Flask

    from bff.broker.memory import Limits, MemoryQueue
    from bff.broker.routes import Parts, register
    from bff.broker.worker import Worker
    from bff.engine import bundled_engine
    from bff.ops import logs
    from bff.ops.streams import Streams
    from bff.transport import new_session
    from bff.upstream import EngineClient, Remote, Timeouts

    if settings is None:
        settings, key = _own_settings()
        logs.set_up(settings.log_level, settings.log_format)
    if engine is None:
        engine = (
            Remote(settings.engine_base_url, settings.engine_api_key) if settings.engine_base_url else bundled_engine(settings)
        )
    timeouts = Timeouts(settings.upstream_connect_seconds, settings.upstream_open_seconds, settings.upstream_read_seconds)
    queue = MemoryQueue(Limits(settings.queue_depth_per_user, settings.log_max_bytes, retention=settings.retention_seconds))
    worker = Worker(
        queue,
        EngineClient(engine, new_session(), timeouts, settings.max_event_bytes),
        max_running=settings.max_running,
        answer_max_seconds=settings.answer_max_seconds,
    )
    app = Flask(__name__)
    # Its readers come back; but what is being answered in memory would be lost, so they may stay while there is time.
    streams = Streams(settings.max_streams, settings.max_streams, farewell=Drained)
    app.extensions["drain"] = partial(streams.drain, settings.drain_seconds)
    register(app, Parts(queue, worker, streams, key, settings.max_body_bytes, settings.on_busy, settings.on_disconnect))
    return app


def _own_settings() -> tuple[Settings, str]:
    try:
        settings = Settings.from_environment(neighbour=True)
        if len(settings.broker_api_key.encode()) < KEY_BYTES:
            raise SettingsError(f"BROKER_API_KEY is required for a broker on a port of its own, {KEY_BYTES} bytes at least.")
    except SettingsError as error:
        print(error, file=sys.stderr)
        sys.exit(3)
    return settings, settings.broker_api_key
