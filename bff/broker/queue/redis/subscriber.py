"""Receives published messages over one connection to Redis per process, whatever the number of readers."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from redis.exceptions import RedisError

from bff.ops.redis import Client
from bff.ops.redis_errors import explain

PING_SECONDS: Final = 5.0
"""Silence after which a PING is sent; after as much again, the connection is closed."""
RECONNECT_SECONDS: Final = 0.5
"""Between two attempts to connect."""

log = logging.getLogger(__name__)

Callback = Callable[[str], None]


class Subscriber:
    """Calls a channel's callbacks with each message, and with "" if messages may have been missed.

    The thread starts with the first subscription and runs until the process ends.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._callbacks: dict[str, list[Callback]] = {}
        self._connection: Any = None
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def subscription(self, channel: str, callback: Callback) -> Iterator[None]:
        self.subscribe(channel, callback)
        try:
            yield
        finally:
            with self._lock:
                callbacks = self._callbacks[channel]
                callbacks.remove(callback)
                if not callbacks:
                    del self._callbacks[channel]
                    self._send("UNSUBSCRIBE", channel)

    def subscribe(self, channel: str, callback: Callback) -> None:
        """`callback` must not block. It is called once with "" as soon as no message can be missed."""
        with self._lock:
            self._callbacks.setdefault(channel, []).append(callback)
            self._send("SUBSCRIBE", channel)  # Even if subscribed already: Redis's reply triggers the call with "".
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
                self._thread.start()

    def close(self) -> None:
        self._closed = True
        with self._lock:
            self._send("QUIT")
        if self._thread is not None:
            self._thread.join(PING_SECONDS)

    def _run(self) -> None:
        failing = False
        while not self._closed:
            try:
                self._connect()
                while not self._closed:
                    self._receive()
                    failing = False
            except Exception as error:  # noqa: BLE001 - whatever it is, such as a socket closed by `close`, the thread has to go on
                if not self._closed:
                    level = logging.DEBUG if failing else logging.WARNING
                    log.log(level, "not receiving from Redis: %s", explain(error) or repr(error))
                    failing = True
                    time.sleep(RECONNECT_SECONDS)
            finally:
                self._disconnect()

    def _connect(self) -> None:
        pool = self._client.connection_pool
        connection = pool.connection_class(**pool.connection_kwargs)
        connection.connect()
        with self._lock:
            self._connection = connection
            if self._callbacks:
                self._send("SUBSCRIBE", *self._callbacks)

    def _disconnect(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def _send(self, *command: str) -> None:
        """Called with the lock held. A command that fails need not be repeated: a new connection subscribes to all channels.

        A broken connection is dropped here, because it would reconnect at the next read, without any subscriptions.
        """
        connection = self._connection
        if connection is not None:
            try:
                connection.send_command(*command, check_health=False)
            except (RedisError, OSError):
                log.debug("cannot send to Redis", exc_info=True)
                self._connection = None
                connection.disconnect()

    def _receive(self) -> None:
        connection = self._connection
        if connection is None:
            raise BrokenPipeError("a command could not be sent")
        if not connection.can_read(timeout=PING_SECONDS):
            with self._lock:
                self._send("PING")
            if not connection.can_read(timeout=PING_SECONDS):
                raise TimeoutError("Redis is silent")
        match connection.read_response():
            case ["message", channel, text]:
                self._dispatch(channel, text)
            case ["subscribe", channel, _]:
                self._dispatch(channel, "")

    def _dispatch(self, channel: str, text: str) -> None:
        with self._lock:
            callbacks = tuple(self._callbacks.get(channel, ()))
        for callback in callbacks:
            callback(text)
