"""What the waiters for gevent and for threads have in common."""

import contextlib
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from math import inf
from time import monotonic
from typing import Final, Protocol

from bff.errors import ClientDisconnected, detached

RESET_SECONDS: Final = 0.05
"""How soon a peer that closed its socket, and not only its sending side, answers a write with a reset."""


class HasDescriptor(Protocol):
    def fileno(self) -> int: ...


class Waiter(ABC):
    """Waits for everything a stream waits for. `cancel` and `wake` may be called from anywhere, all else by the stream."""

    nested = False
    """Whether it waits inside its reader's waiter, which wants control before each wait."""

    def __init__(self, client: socket.socket | None) -> None:
        self._client = client
        self._woken = False
        self.wake_at = inf
        """The moment (monotonic) at which `wait` returns at the latest, for example for a heartbeat."""
        self.allow_half_open = True
        self.cancel_reason: Exception | None = None
        """Once set, each `wait` raises a copy of it."""
        self._in_doubt_until = -inf
        self.confirm: Callable[[], None] | None = None
        """Called at the end of `confirm_connected`, for owners that know more than a socket. It may cancel."""

    def wait(self, upstream: HasDescriptor | None = None, deadline: float = inf) -> None:
        """Returns when `upstream` is readable, at `deadline` or `wake_at`, after `wake`, or spuriously.

        Raises ClientDisconnected, and what `cancel` was given.
        """
        if not self._woken and self.cancel_reason is None:
            self._sleep(upstream, min(deadline, self.wake_at))
        self._woken = False
        if self.cancel_reason is not None:
            self.check()

    def check(self) -> None:
        """Raises what `cancel` was given, if it was called."""
        if self.cancel_reason is not None:
            raise detached(self.cancel_reason)

    def sleep(self, seconds: float) -> Iterator[None]:
        """Yields None whenever it is awake, so that the stream can send what it has to. Raises what `wait` raises."""
        end = monotonic() + seconds
        while monotonic() < end:
            yield None
            self.wait(deadline=end)

    def confirm_connected(self) -> Iterator[None]:
        """Ends once it is known whether the client is connected, as far as its socket can tell: mostly at once.

        Iterate it with a write after each None, which a closed peer answers with a reset. Raises what `wait` raises.
        """
        for _ in range(3):  # What woke us up already, then this moment, then what came with it.
            self.wait(deadline=monotonic())
        while monotonic() < self._in_doubt_until:
            yield None
            self.wait(deadline=self._in_doubt_until)
        if self._in_doubt_until > -inf:
            self._check_for_reset()
        if self.cancel_reason is None and self.confirm is not None:
            self.confirm()
        self.check()

    def cancel(self, reason: Exception) -> None:
        """Ends the stream with `reason`; the first reason counts."""
        if self.cancel_reason is None:
            self.cancel_reason = detached(reason)
            self.wake()

    def abort(self) -> None:
        """Closes the client's connection."""
        if self._client is not None:
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_RDWR)

    @abstractmethod
    def wake(self) -> None:
        """Ends the current wait, or the next one."""

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def _sleep(self, upstream: HasDescriptor | None, deadline: float) -> None: ...

    def _client_is_readable(self) -> bool:
        """Looks at what made the client's socket readable. True if it may be gone, which a write will show."""
        assert self._client is not None
        try:
            data = self._client.recv(1, socket.MSG_PEEK)
        except OSError:
            self.cancel(ClientDisconnected())
            return False
        if data:
            return False  # A pipelined request: this socket says nothing more about a disconnect.
        if not self.allow_half_open:
            self.cancel(ClientDisconnected())
            return False
        # A FIN, of a closed socket or of its sending side only. Writing at once makes a closed peer answer with a reset.
        self.wake_at = 0.0
        self._in_doubt_until = monotonic() + 2 * RESET_SECONDS
        self.wake()
        return True

    def _check_for_reset(self) -> None:
        assert self._client is not None
        if self._client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.cancel(ClientDisconnected())
