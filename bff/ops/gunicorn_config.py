"""gunicorn's configuration, derived from our settings (bff/config/settings.py).

Our own gunicorn.conf.py and that of a host application use it: `globals().update(gunicorn_config())`.

Nothing here may import urllib3, requests or ssl at the top: workers monkey-patch after the configuration was read.
"""

import os
import re
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bff.config.environment import load_settings
from bff.config.settings import Settings
from bff.errors import SettingsError
from bff.ops import metrics_dir

if TYPE_CHECKING:
    from bff.ops.lifecycle import Lifecycle

LARGE_UPLOAD_BYTES: Final = 64 * 1024
STREAM: Final = re.compile(r"/stream(/[^/]+)?$|/v1/chat/completions$")


def gunicorn_config(settings: Settings | None = None) -> dict[str, Any]:
    """gunicorn's settings and server hooks by name; `settings` are read from the environment by default.

    A host application may replace any of them afterwards, and should call our hook from its own where it needs both. Exits
    with status 3 if a setting is invalid: gunicorn stops then.
    """
    from gevent import config as gevent_config

    gevent_config.track_greenlet_tree = False  # Unused, and takes a tenth of the CPU time.
    try:
        settings = settings or load_settings(backend_only=True)
    except SettingsError as error:
        print(error, file=sys.stderr)
        sys.exit(3)
    return _processes(settings) | _limits(settings) | _Hooks(settings).by_name()


def _processes(settings: Settings) -> dict[str, Any]:
    return {
        "bind": settings.socket_address(),  # On `::` Linux accepts IPv4 connections as well.
        "worker_class": "gevent",
        # Without Redis the bundled broker keeps its queue in memory, and a second process would have a queue of its own. This
        # holds with an external broker, too: replies in conversations, and those of a broker without event ids, go through it.
        "workers": settings.web_concurrency if settings.redis_url else 1,
        "preload_app": False,  # gevent must patch first.
        "control_socket_disable": True,  # It runs asyncio in the master, and two servers of one user would share the socket.
        "loglevel": settings.log_level.lower(),
        # Some hosting platforms enable the access log. Its default format has the query, which may contain a ticket.
        "access_log_format": '%(h)s "%(m)s %(U)s %(H)s" %(s)s %(B)s %(L)s',
        # The app evaluates X-Forwarded-* itself (TRUSTED_PROXY_HOPS), so FORWARDED_ALLOW_IPS of a platform has no effect.
        "forwarded_allow_ips": "",
        "secure_scheme_headers": {},
        "forwarder_headers": "",
    }


def _limits(settings: Settings) -> dict[str, Any]:
    """Times are in seconds."""
    return {
        # gunicorn lets further clients wait without a reply; the app refuses them long before.
        "worker_connections": settings.max_streams + 1000,
        "keepalive": 5,  # Also the time limit for a request's line and headers.
        "limit_request_fields": 64,  # Times the next value: one connection can occupy 512 KiB with headers.
        "limit_request_field_size": 8190,
        "timeout": max(30, int(settings.drain_seconds) + 10),  # A draining worker does not send heartbeats to the master.
        "graceful_timeout": int(settings.drain_seconds) + 10,  # Streams are ended before that: see `post_worker_init`.
        "max_requests": 0,  # A worker that reaches it accepts nobody until its last stream has ended.
    }


class _Hooks:
    """gunicorn's server hooks: https://docs.gunicorn.org/en/stable/settings.html#server-hooks."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Several processes share their metrics in files; a single process keeps them in memory.
        self.shares_metrics = bool(settings.prometheus_multiproc_dir) or bool(
            settings.redis_url and settings.web_concurrency > 1
        )
        configured = settings.prometheus_multiproc_dir
        self.metrics_dir = Path(configured) if configured else metrics_dir.new_path()

    def by_name(self) -> dict[str, Any]:
        """The hooks, and the environment of the workers."""
        hooks = (
            self.on_starting,
            self.on_reload,
            self.when_ready,
            self.post_worker_init,
            self.worker_int,
            self.worker_exit,
            self.child_exit,
            self.on_exit,
            self.pre_request,
        )
        raw_env = [f"PROMETHEUS_MULTIPROC_DIR={self.metrics_dir}"] if self.shares_metrics else []
        return {"raw_env": raw_env} | {hook.__name__: hook for hook in hooks}

    def on_starting(self, server: Any) -> None:
        """Checks Redis before workers are started, in a child process: the master must not import what gevent patches."""
        self._create_metrics_dir(server)
        if self._settings.redis_url:
            child = os.fork()
            if not child:
                os._exit(_check_redis(self._settings))
            if os.waitpid(child, 0)[1]:
                sys.exit(3)

    def on_reload(self, server: Any) -> None:
        """gunicorn has read its configuration again: the new workers share a new metrics directory."""
        self._create_metrics_dir(server)

    def _create_metrics_dir(self, server: Any) -> None:
        if self._settings.prometheus_multiproc_dir:  # It is left to the operator to remove it.
            self.metrics_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif self.shares_metrics:
            metrics_dir.create(self.metrics_dir)
            server.metrics_dirs = [*getattr(server, "metrics_dirs", []), self.metrics_dir]

    def when_ready(self, server: Any) -> None:
        settings = self._settings
        if settings.web_concurrency > 1 and not settings.redis_url:
            message = "One process and not WEB_CONCURRENCY=%d: the queue is in its memory."
            server.log.warning(message, settings.web_concurrency)
        if settings.development:
            server.log.info("Chat at http://%s", settings.socket_address().replace("127.0.0.1", "localhost"))

    def post_worker_init(self, worker: Any) -> None:
        """Starts the background threads, and a thread that drains the worker when it is told to stop."""
        from bff.ops import accepting, lifecycle, memory

        lifecycles = lifecycle.registered()
        for each in lifecycles:
            each.start()
        accepting.limit_accepts()
        worker.drain = threading.Thread(target=_drain_on_stop, args=(worker, lifecycles), name="drain", daemon=True)
        worker.drain.start()
        memory.unmap_large_blocks()
        memory.tune_garbage_collector()
        memory.QuietCollector(lambda: sum(each.open_streams() for each in lifecycles)).start()

    def worker_int(self, worker: Any) -> None:
        """SIGINT and SIGQUIT: stop without a drain. Other processes take over unfinished replies when their leases expire."""
        vars(worker).pop("drain", None)

    def worker_exit(self, server: Any, worker: Any) -> None:
        """A worker without open connections exits at once, unless it waits here until running replies are handed over."""
        if hasattr(worker, "drain"):
            worker.drain.join()

    def child_exit(self, server: Any, worker: Any) -> None:
        """Removes the gauges of a process that has ended. prometheus_client's own function would have to be imported here."""
        for gauge in self.metrics_dir.glob(f"gauge_live*_{worker.pid}.db"):
            gauge.unlink(missing_ok=True)

    def on_exit(self, server: Any) -> None:
        for directory in getattr(server, "metrics_dirs", []):
            shutil.rmtree(directory, ignore_errors=True)

    def pre_request(self, worker: Any, req: Any) -> None:
        # Close the connection after a stream, as a keep-alive connection would delay the worker's exit, and after a large
        # upload: if it is refused, what still arrives is dropped (bff/ops/uploads.py), and no next request can follow.
        if STREAM.search(req.path) or _is_large_upload(req):
            req.headers.insert(0, ("CONNECTION", "close"))


def _is_large_upload(req: Any) -> bool:
    fields = dict(req.headers)
    return "TRANSFER-ENCODING" in fields or int(fields.get("CONTENT-LENGTH", 0)) > LARGE_UPLOAD_BYTES


def _drain_on_stop(worker: Any, lifecycles: "list[Lifecycle]") -> None:
    """gunicorn has no hook for SIGTERM, and kills open streams at `graceful_timeout` without running their `finally`."""
    from bff.ops import lifecycle

    while worker.alive:
        time.sleep(0.2)
    lifecycle.drain(lifecycles)


def _check_redis(settings: Settings) -> int:
    """The status to exit with."""
    from bff.ops import redis

    try:
        redis.check(settings.redis_url, verify=settings.redis_tls_verify)
    except SettingsError as error:
        print(error, file=sys.stderr, flush=True)
        return 3
    return 0
