"""What happens elsewhere, heard over one connection to Redis: a process has one, whatever the number of its readers."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from redis.exceptions import RedisError

from bff.ops.redis import Client

PING_SECONDS: Final = 5.0
"""Of silence, after which Redis is asked whether it is there; as much again, and the connection is given up."""
AGAIN_SECONDS: Final = 0.5

log = logging.getLogger(__name__)

Hear = Callable[[str], None]


class Subscriber:
    """Calls whoever hears a channel with each message, and with "" when messages may have been missed.

    The thread starts with the first hearer and lives as long as the process.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._hearers: dict[str, list[Hear]] = {}
        self._connection: Any = None
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def hearing(self, channel: str, hear: Hear) -> Iterator[None]:
        """`hear` must not block. It is called once as soon as nothing can be missed any more."""
        self.hear(channel, hear)
        try:
            yield
        finally:
            with self._lock:
                hearers = self._hearers[channel]
                hearers.remove(hear)
                if not hearers:
                    del self._hearers[channel]
                    self._send("UNSUBSCRIBE", channel)

    def hear(self, channel: str, hear: Hear) -> None:
        with self._lock:
            self._hearers.setdefault(channel, []).append(hear)
            self._send("SUBSCRIBE", channel)  # Again, if others hear it: the answer tells this one that nothing is missed.
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """For tests, which make many: a process needs its listener to the end."""
        self._closed = True
        with self._lock:
            self._send("QUIT")
        if self._thread is not None:
            self._thread.join(PING_SECONDS)

    def _run(self) -> None:
        away = False
        while not self._closed:
            try:
                self._connect()
                while not self._closed:
                    self._hear_one()
                    away = False
            except Exception as error:  # noqa: BLE001 - as with a socket closed under the library's hands: nobody else listens
                if not self._closed:
                    log.log(logging.DEBUG if away else logging.WARNING, "not hearing Redis: %r", error)
                    away = True
                    time.sleep(AGAIN_SECONDS)
            finally:
                self._disconnect()

    def _connect(self) -> None:
        pool = self._client.connection_pool
        connection = pool.connection_class(**pool.connection_kwargs)
        connection.connect()
        with self._lock:
            self._connection = connection
            if self._hearers:
                self._send("SUBSCRIBE", *self._hearers)

    def _disconnect(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def _send(self, *command: str) -> None:
        """With the lock held. What cannot be sent is made good by the next connection, which begins with all channels.

        A connection that broke is given up: by itself it would connect again at the next read, and hear nothing.
        """
        connection = self._connection
        if connection is not None:
            try:
                connection.send_command(*command, check_health=False)
            except (RedisError, OSError):
                log.debug("a connection broke", exc_info=True)
                self._connection = None
                connection.disconnect()

    def _hear_one(self) -> None:
        connection = self._connection
        if connection is None:
            raise BrokenPipeError("a word could not be sent")
        if not connection.can_read(timeout=PING_SECONDS):
            with self._lock:
                self._send("PING")
            if not connection.can_read(timeout=PING_SECONDS):
                raise TimeoutError("Redis is silent")
        match connection.read_response():
            case ["message", channel, text]:
                self._tell(channel, text)
            case ["subscribe", channel, _]:
                self._tell(channel, "")

    def _tell(self, channel: str, text: str) -> None:
        with self._lock:
            hearers = tuple(self._hearers.get(channel, ()))
        for hear in hearers:
            hear(text)
