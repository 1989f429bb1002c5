"""The app with its waits during an outage multiplied by TIME_SCALE, to test long outages quickly."""

import os

from bff import create_app
from bff.broker import routes, run, worker
from bff.broker.queue.redis import subscriber
from bff.ops import redis, redis_limits
from bff.upstream import reconnect

WAITS = {
    reconnect: ("RECONNECT_SECONDS", "REOPEN_SECONDS", "MIN_REOPEN_SECONDS"),
    run: ("RETRY_SECONDS",),
    worker: ("PAUSE_SECONDS", "SWEEP_SECONDS", "CLAIM_SECONDS"),
    routes: ("PING_SECONDS",),
    subscriber: ("PING_SECONDS", "RECONNECT_SECONDS"),
    redis_limits: ("BACKOFF_SECONDS",),
    redis: ("TIMEOUT_SECONDS",),
}
SCALE = float(os.environ["TIME_SCALE"])

for module, names in WAITS.items():
    for name in names:
        setattr(module, name, getattr(module, name) * SCALE)

app = create_app()
