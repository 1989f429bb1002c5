"""gunicorn's settings; ours come from the environment (bff/config/settings.py). Found by gunicorn in the working directory."""

import os
import re
import secrets
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from gevent import config as gevent_config

from bff.config.environment import load_settings
from bff.errors import SettingsError

# Only what imports no urllib3, requests or ssl user may be imported here: the worker patches after this file has run.

try:
    settings = load_settings(neighbour=True)
except SettingsError as error:
    print(error, file=sys.stderr)
    sys.exit(3)

bind = f"{'127.0.0.1' if settings.development else '0.0.0.0'}:{settings.port}"  # noqa: S104 - a platform's router is outside
worker_class = "gevent"
# Without Redis the bundled broker keeps its queue in memory: a second process would have a queue of its own.
# That queue is in use with an external broker, too: replies in conversations go through it, and all of one that does not
# number its events.
alone = not settings.redis_url
workers = 1 if alone else settings.web_concurrency
worker_connections = settings.max_streams + 1000  # Beyond them a client hangs unanswered: we refuse long before.
keepalive = 5  # Seconds, and also what a request has to send its line and headers.
limit_request_fields = 64  # Times the next line, that is what one connection can make us hold: 512 KiB.
limit_request_field_size = 8190
# What a proxy says is believed by the app, for TRUSTED_PROXY_HOPS; a platform's FORWARDED_ALLOW_IPS='*' must not count.
forwarded_allow_ips = ""
secure_scheme_headers = {}
forwarder_headers = ""
# Some platforms switch the access log on. Its default has queries in it, where tickets are.
access_log_format = '%(h)s "%(m)s %(U)s %(H)s" %(s)s %(B)s %(L)s'
timeout = max(30, int(settings.drain_seconds) + 10)  # A worker that only hands over gives no sign of life meanwhile.
graceful_timeout = int(settings.drain_seconds) + 10  # What is open ends before, by itself: see `post_worker_init`.
max_requests = 0  # Reaching it would be an outage: nobody accepts until the last stream has ended.
gevent_config.track_greenlet_tree = False  # Nobody looks at it, and a tenth of the time went into it.
preload_app = False  # gevent must patch first.
control_socket_disable = True  # It would run asyncio in the master, and two servers of one user would share it.
loglevel = settings.log_level.lower()
# Several processes are counted together, in files; what one process counts is in its memory.
counts = Path(settings.prometheus_multiproc_dir or Path(tempfile.gettempdir()) / f"chat-bff-{secrets.token_hex(8)}")
counted_together = workers > 1 or bool(settings.prometheus_multiproc_dir)
raw_env = [f"PROMETHEUS_MULTIPROC_DIR={counts}"] if counted_together else []

STREAM = re.compile(r"/stream(/[^/]+)?$|^/v1/chat/completions$")


def on_starting(server):
    """What cannot work is refused before there are workers, in a child: here nothing may be imported that gevent patches."""
    count_together(server)
    if settings.redis_url:
        child = os.fork()
        if not child:
            os._exit(check_redis())
        if os.waitpid(child, 0)[1]:
            sys.exit(3)


def on_reload(server):
    """This file was run again for it: the new workers count in a folder of their own."""
    count_together(server)


def count_together(server):
    if counted_together:
        counts.mkdir(mode=0o700, parents=True, exist_ok=True)
        server.counts = [*getattr(server, "counts", []), counts]


def check_redis():
    from bff.broker.app import check

    try:
        check(settings)
    except SettingsError as error:
        print(error, file=sys.stderr, flush=True)
        return 3
    return 0


def when_ready(server):
    if settings.web_concurrency > workers:
        server.log.warning("One process and not WEB_CONCURRENCY=%d: the queue is in its memory.", settings.web_concurrency)
    if settings.development:
        server.log.info("Chat at http://localhost:%d", settings.port)


def post_worker_init(worker):
    """Begins the app's life, and the wait for its end."""
    from bff.ops import memory

    lifecycle = worker.app.callable.extensions["chat_bff"].lifecycle
    lifecycle.start()
    worker.drain = threading.Thread(target=drain_when_told, args=(worker, lifecycle.drain), name="drain", daemon=True)
    worker.drain.start()
    memory.spare_streams_the_collector()
    memory.QuietCollector(lifecycle.open_streams).start()


def drain_when_told(worker, drain):
    """gunicorn has no hook for SIGTERM, and at `graceful_timeout` it kills what streams: nothing of theirs would run."""
    while worker.alive:
        time.sleep(0.2)
    drain()


def worker_int(worker):
    """SIGINT, SIGQUIT: whoever sends them does not want to wait. Redis's leases tell the others what was not finished."""
    vars(worker).pop("drain", None)


def worker_exit(server, worker):
    """Without open connections a worker leaves at once; what it is answering has to be handed over first."""
    if hasattr(worker, "drain"):
        worker.drain.join()


def child_exit(server, worker):
    """What a process that is gone still holds open is nothing. The library's own way would be to import it here."""
    for gauge in counts.glob(f"gauge_live*_{worker.pid}.db"):
        gauge.unlink(missing_ok=True)


def on_exit(server):
    if not settings.prometheus_multiproc_dir:  # Somebody's own is theirs to empty.
        for folder in getattr(server, "counts", []):
            shutil.rmtree(folder, ignore_errors=True)


def pre_request(worker, req):
    if STREAM.search(req.path):
        # A stream's connection ends with it; kept alive it would hold up the worker's exit.
        req.headers.insert(0, ("CONNECTION", "close"))
