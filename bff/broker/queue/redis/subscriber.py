"""Receives published messages over one connection to a Redis server per process, whatever the number of readers."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from redis.exceptions import RedisError

from bff.ops.redis_errors import explain

PING_SECONDS: Final = 5.0
"""Silence after which a PING is sent; after as much again, the connection is closed."""
RECONNECT_SECONDS: Final = 0.5
"""Between two attempts to connect."""

log = logging.getLogger(__name__)

Callback = Callable[[str], None]


class Subscribers(Protocol):
    def subscribe(self, channel: str, callback: Callback, *, sharded: bool = False) -> None:
        """`callback` must not block. It is called once with "" as soon as no message can be missed."""

    def unsubscribe(self, channel: str, callback: Callback) -> None: ...

    def close(self) -> None: ...


@contextmanager
def subscription(subscribers: Subscribers, channel: str, callback: Callback, *, sharded: bool) -> Iterator[None]:
    subscribers.subscribe(channel, callback, sharded=sharded)
    try:
        yield
    finally:
        subscribers.unsubscribe(channel, callback)


class Subscriber:
    """Calls a channel's callbacks with each message, and with "" if messages may have been missed.

    The thread starts with the first subscription and runs until the process ends.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        check: Callable[[Any], None] = lambda _: None,
        failed: Callable[[], None] = lambda: None,
        *,
        command: str = "SUBSCRIBE",
    ) -> None:
        """`connect` returns a new connection. `check` raises if a connection must not be used any longer.

        `failed` is called after a connection has failed. `command`: SSUBSCRIBE for channels of a cluster's slots.
        """
        self._new_connection = connect
        self._check = check
        self._failed = failed
        self._command = command
        self._message, self._subscribed = ("smessage", "ssubscribe") if command == "SSUBSCRIBE" else ("message", "subscribe")
        self._lock = threading.Lock()
        self._callbacks: dict[str, list[Callback]] = {}
        self._connection: Any = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def subscribe(self, channel: str, callback: Callback, *, sharded: bool = False) -> None:
        """`sharded` has no effect: all channels of a server are alike."""
        with self._lock:
            self._callbacks.setdefault(channel, []).append(callback)
            self._send(self._command, channel)  # Even if subscribed already: Redis's reply triggers the call with "".
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
                self._thread.start()

    def unsubscribe(self, channel: str, callback: Callback) -> None:
        with self._lock:
            callbacks = self._callbacks.get(channel, [])
            if callback in callbacks:
                callbacks.remove(callback)
            if not callbacks and self._callbacks.pop(channel, None) is not None:
                self._send(self._command.replace("SUB", "UNSUB"), channel)

    def channels(self) -> list[str]:
        with self._lock:
            return [*self._callbacks]

    def has(self, channel: str) -> bool:
        return channel in self._callbacks

    def take(self, channel: str) -> list[Callback]:
        """Ends all subscriptions to the channel and returns their callbacks."""
        with self._lock:
            callbacks = self._callbacks.pop(channel, [])
            if callbacks:
                self._send(self._command.replace("SUB", "UNSUB"), channel)
            return callbacks

    def close(self) -> None:
        self._closed = True
        with self._lock:
            self._send("QUIT")
        if self._thread is not None and self._thread is not threading.current_thread():
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
            finally:
                self._disconnect()
            if not self._closed:
                time.sleep(RECONNECT_SECONDS)
                self._failed()

    def _connect(self) -> None:
        connection = self._new_connection()
        connection.connect()
        with self._lock:
            self._connection = connection
            if self._callbacks:
                self._send_all(self._callbacks)

    def _send_all(self, channels: dict[str, list[Callback]]) -> None:
        """Redis accepts channels of one slot only in an SSUBSCRIBE."""
        connection = self._connection
        if self._command == "SUBSCRIBE":
            self._send(self._command, *channels)
        else:
            connection.send_packed_command(connection.pack_commands([(self._command, channel) for channel in channels]))

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
        self._check(connection)
        if not connection.can_read(timeout=PING_SECONDS):
            with self._lock:
                self._send("PING")
            if not connection.can_read(timeout=PING_SECONDS):
                raise TimeoutError("Redis is silent")
        match connection.read_response():
            case [self._message, channel, text]:
                self._dispatch(channel, text)
            case [self._subscribed, channel, _]:
                self._dispatch(channel, "")
            case ["sunsubscribe", channel, _] if channel in self._callbacks:
                raise ConnectionResetError("a channel's slot has moved to another node")

    def _dispatch(self, channel: str, text: str) -> None:
        with self._lock:
            callbacks = tuple(self._callbacks.get(channel, ()))
        for callback in callbacks:
            callback(text)
