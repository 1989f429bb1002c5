"""gunicorn's configuration, derived from our settings (bff/config/settings.py). gunicorn finds it in the working directory."""

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

# Import nothing here that imports urllib3, requests or ssl: workers monkey-patch after this file has run.

try:
    settings = load_settings(backend_only=True)
except SettingsError as error:
    print(error, file=sys.stderr)
    sys.exit(3)

bind = settings.socket_address()  # On `::` Linux accepts IPv4 connections as well.
worker_class = "gevent"
# Without Redis the bundled broker keeps its queue in memory, and a second process would have a queue of its own. This holds
# with an external broker, too: replies in conversations, and those of a broker without event ids, go through the bundled queue.
workers = settings.web_concurrency if settings.redis_url else 1
worker_connections = (
    settings.max_streams + 1000
)  # gunicorn lets further clients wait without a reply; the app refuses them long before.
keepalive = 5  # Seconds; also the time limit for a request's line and headers.
limit_request_fields = 64  # Times the next value: one connection can occupy 512 KiB with headers.
limit_request_field_size = 8190
# The app evaluates X-Forwarded-* itself (TRUSTED_PROXY_HOPS), so FORWARDED_ALLOW_IPS of a hosting platform has no effect.
forwarded_allow_ips = ""
secure_scheme_headers = {}
forwarder_headers = ""
# Some hosting platforms enable the access log. Its default format has the query, which may contain a ticket.
access_log_format = '%(h)s "%(m)s %(U)s %(H)s" %(s)s %(B)s %(L)s'
timeout = max(30, int(settings.drain_seconds) + 10)  # A draining worker does not send heartbeats to the master.
graceful_timeout = int(settings.drain_seconds) + 10  # Streams are ended before that: see `post_worker_init`.
max_requests = 0  # A worker that reaches it accepts nobody until its last stream has ended.
gevent_config.track_greenlet_tree = False  # Unused, and takes a tenth of the CPU time.
preload_app = False  # gevent must patch first.
control_socket_disable = True  # It runs asyncio in the master, and two servers of one user would share the socket.
loglevel = settings.log_level.lower()
# Several processes share their metrics in files; a single process keeps them in memory.
metrics_dir = Path(settings.prometheus_multiproc_dir or Path(tempfile.gettempdir()) / f"chat-bff-{secrets.token_hex(8)}")
shares_metrics = workers > 1 or bool(settings.prometheus_multiproc_dir)
raw_env = [f"PROMETHEUS_MULTIPROC_DIR={metrics_dir}"] if shares_metrics else []

LARGE_UPLOAD_BYTES = 64 * 1024
STREAM = re.compile(r"/stream(/[^/]+)?$|^/v1/chat/completions$")


def on_starting(server):
    """Checks Redis before workers are started, in a child process: the master must not import what gevent patches."""
    create_metrics_dir(server)
    if settings.redis_url:
        child = os.fork()
        if not child:
            os._exit(check_redis())
        if os.waitpid(child, 0)[1]:
            sys.exit(3)


def on_reload(server):
    """gunicorn has run this file again: the new workers share a new metrics directory."""
    create_metrics_dir(server)


def create_metrics_dir(server):
    if shares_metrics:
        metrics_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        server.metrics_dirs = [*getattr(server, "metrics_dirs", []), metrics_dir]


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
        server.log.info("Chat at http://%s", settings.socket_address().replace("127.0.0.1", "localhost"))


def post_worker_init(worker):
    """Starts the app's background threads, and a thread that drains the worker when it is told to stop."""
    from bff.ops import memory

    lifecycle = worker.app.callable.extensions["chat_bff"].lifecycle
    lifecycle.start()
    worker.drain = threading.Thread(target=drain_on_stop, args=(worker, lifecycle.drain), name="drain", daemon=True)
    worker.drain.start()
    memory.tune_garbage_collector()
    memory.QuietCollector(lifecycle.open_streams).start()


def drain_on_stop(worker, drain):
    """gunicorn has no hook for SIGTERM, and kills open streams at `graceful_timeout` without running their `finally`."""
    while worker.alive:
        time.sleep(0.2)
    drain()


def worker_int(worker):
    """SIGINT and SIGQUIT: stop without a drain. Other processes take over unfinished replies when their leases expire."""
    vars(worker).pop("drain", None)


def worker_exit(server, worker):
    """A worker without open connections exits at once, unless it waits here until running replies are handed over."""
    if hasattr(worker, "drain"):
        worker.drain.join()


def child_exit(server, worker):
    """Removes the gauges of a process that has ended. prometheus_client's own function would have to be imported here."""
    for gauge in metrics_dir.glob(f"gauge_live*_{worker.pid}.db"):
        gauge.unlink(missing_ok=True)


def on_exit(server):
    if not settings.prometheus_multiproc_dir:  # A configured directory is left to the operator.
        for directory in getattr(server, "metrics_dirs", []):
            shutil.rmtree(directory, ignore_errors=True)


def pre_request(worker, req):
    # Close the connection after a stream, as a keep-alive connection would delay the worker's exit, and after a large upload:
    # if it is refused, what still arrives is read and dropped (bff/ops/uploads.py), and no next request can follow.
    if STREAM.search(req.path) or is_large_upload(req):
        req.headers.insert(0, ("CONNECTION", "close"))


def is_large_upload(req):
    fields = dict(req.headers)
    return "TRANSFER-ENCODING" in fields or int(fields.get("CONTENT-LENGTH", 0)) > LARGE_UPLOAD_BYTES
