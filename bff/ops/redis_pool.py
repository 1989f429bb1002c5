"""A pool of connections to one Redis server."""

import contextlib
import threading
from functools import cache
from queue import Empty
from time import monotonic
from typing import Any, Final

import redis
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bff.http.waiting.fair_stack import FairStack

Address = tuple[str, int]
TRIM_INTERVAL_SECONDS: Final = 30.0
"""Idle connections are closed at this interval, so that those of a burst do not stay open."""


class Pool(redis.BlockingConnectionPool):
    """A pool that closes idle connections, and serves waiting callers in their order."""

    def __init__(self, **options: Any) -> None:
        untyped: Any = super()
        untyped.__init__(queue_class=FairStack, **options)
        self._trimmed_at = monotonic()

    def release(self, connection: Any) -> None:
        untyped: Any = super()
        untyped.release(connection)
        if monotonic() >= self._trimmed_at + TRIM_INTERVAL_SECONDS:
            self._trimmed_at = monotonic()
            self._trim()

    def disconnect(self, inuse_connections: bool = True) -> None:
        """redis-py would close a free connection that another thread is taking out of the pool."""
        if not inuse_connections:
            self._trim()
            return
        untyped: Any = super()
        untyped.disconnect()

    def disconnect_free_connections(self, *_: Any, **__: Any) -> None:
        self._trim()

    def _trim(self) -> None:
        """Takes all free connections out of the pool while it closes them, so that nobody uses one meanwhile."""
        free: list[Any] = []
        with contextlib.suppress(Empty):
            while True:
                free.append(self.pool.get_nowait())
        for connection in reversed(free):
            if connection is not None:
                connection.disconnect()
            self.pool.put_nowait(connection)


@cache
def connection_class(base: Any) -> Any:
    """A class of connections that are closed if the server has become a replica: its name may now be that of another server."""

    class Connection(base):  # type: ignore[misc]
        timed_out = False
        holder = 0
        """The thread that has taken it out of its pool."""

        def connect(self) -> None:
            self.holder = threading.get_ident()  # The pool calls this for each connection that it hands out.
            super().connect()

        def read_response(self, *arguments: Any, **options: Any) -> Any:
            try:
                return super().read_response(*arguments, **options)
            except ResponseError as error:
                if "READONLY" in str(error) or "read only replica" in str(error):
                    self.disconnect()
                raise
            except RedisTimeoutError:
                self.timed_out = True
                raise

    return Connection
