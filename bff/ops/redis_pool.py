"""A pool of connections to one Redis server."""

import contextlib
import threading
from collections import deque
from functools import cache
from queue import Empty, Full
from time import monotonic
from typing import Any, Final

import redis
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

Address = tuple[str, int]
TRIM_INTERVAL_SECONDS: Final = 30.0
"""Idle connections are closed at this interval, so that those of a burst do not stay open."""


class _Waiting:
    def __init__(self) -> None:
        self.served = threading.Event()
        self.item: Any = None

    def serve(self, item: Any) -> None:
        self.item = item
        self.served.set()


class FairStack:
    """A LifoQueue that serves those who wait first, in their order.

    From the standard one, a caller that puts back its item and gets one again takes it before those who wait: under gevent it
    does so until it blocks elsewhere, and they may time out.
    """

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self.queue: list[Any] = []
        """Empty while anyone waits."""

    def put_nowait(self, item: Any) -> None:
        """Raises Full."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().serve(item)
            elif len(self.queue) < self._maxsize:
                self.queue.append(item)
            else:
                raise Full

    def get_nowait(self) -> Any:
        return self.get(block=False)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """`timeout`: seconds. Raises Empty."""
        with self._lock:
            if self.queue:
                return self.queue.pop()
            if not block:
                raise Empty
            waiting = _Waiting()
            self._waiting.append(waiting)
        try:
            waiting.served.wait(timeout)
        except BaseException:
            if not self._leave(waiting):
                self.put_nowait(waiting.item)
            raise
        if self._leave(waiting):
            raise Empty
        return waiting.item

    def _leave(self, waiting: _Waiting) -> bool:
        """Returns whether it was still waiting."""
        with self._lock:
            if waiting.served.is_set():
                return False
            self._waiting.remove(waiting)
            return True


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
