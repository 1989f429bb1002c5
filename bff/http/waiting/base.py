"""One waiting place for all that a stream waits for at once: what both halves of the hub have in common."""

import contextlib
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from math import inf
from time import monotonic
from typing import Final, Protocol

from bff.errors import ReaderLeft, detached

RESET_SECONDS: Final = 0.05
"""How soon a peer that closed, and did not just half-close, answers a write with a reset."""


class HasDescriptor(Protocol):
    def fileno(self) -> int: ...


class Watch(ABC):
    """`end` and `wake` may be called from anywhere, everything else by the stream itself."""

    nested = False
    """Whether it is inside its reader's own, who wants to be asked before each wait."""

    def __init__(self, browser: socket.socket | None) -> None:
        self._browser = browser
        self._woken = False
        self.due = inf
        """The moment (monotonic) at which the stream has something to say of its own: it wants to be awake then."""
        self.half_open = True
        self.ending: Exception | None = None
        """Why the stream has to end, if it has to. Each `wait` from then on raises a copy."""
        self._in_doubt_until = -inf
        self.confirm: Callable[[], None] | None = None
        """Called by `make_sure` at its end, where whoever waits here knows more than a socket; it ends the watch, or not."""

    def wait(self, upstream: HasDescriptor | None = None, until: float = inf) -> None:
        """Returns when `upstream` is readable, at `until` or `due`, after `wake`, or for no reason.

        Raises ReaderLeft when the browser is gone, and whatever `end` was given.
        """
        if not self._woken and self.ending is None:
            self._sleep(upstream, min(until, self.due))
        self._woken = False
        if self.ending is not None:
            self.check()

    def check(self) -> None:
        """Raises what `end` was given, if it was."""
        if self.ending is not None:
            raise detached(self.ending)

    def pause(self, seconds: float) -> Iterator[None]:
        """Whatever else is to be said meanwhile is said at each None. Raises what `wait` raises."""
        end = monotonic() + seconds
        while monotonic() < end:
            yield None
            self.wait(until=end)

    def make_sure(self) -> Iterator[None]:
        """Until it is known whether the browser is still there, as far as its socket can tell: mostly at once.

        Raises what `wait` raises. To be iterated with a write after each None, which a closed peer answers with a reset.
        """
        for _ in range(3):  # What woke us up already, then this moment, then what came with it.
            self.wait(until=monotonic())
        while monotonic() < self._in_doubt_until:
            yield None
            self.wait(until=self._in_doubt_until)
        if self._in_doubt_until > -inf:
            self._look_for_reset()
        if self.ending is None and self.confirm is not None:
            self.confirm()
        self.check()

    def end(self, reason: Exception) -> None:
        """Ends the stream with `reason`; the first one counts."""
        if self.ending is None:
            self.ending = detached(reason)
            self.wake()

    def cut(self) -> None:
        """Hangs up on the browser."""
        if self._browser is not None:
            with contextlib.suppress(OSError):
                self._browser.shutdown(socket.SHUT_RDWR)

    @abstractmethod
    def wake(self) -> None:
        """Ends the wait that is going on, or the next one."""

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def _sleep(self, upstream: HasDescriptor | None, until: float) -> None: ...

    def _browser_spoke(self) -> bool:
        """Looks at what made the browser's socket readable; True if it may be gone, which a write will tell."""
        assert self._browser is not None
        try:
            said = self._browser.recv(1, socket.MSG_PEEK)
        except OSError:
            self.end(ReaderLeft())
            return False
        if said:
            return False  # The next request, ahead of its time. Nothing to learn from this socket any more.
        if not self.half_open:
            self.end(ReaderLeft())
            return False
        # A FIN: closed, or only its sending half. Saying something at once makes a closed peer answer with a reset.
        self.due = 0.0
        self._in_doubt_until = monotonic() + 2 * RESET_SECONDS
        self.wake()
        return True

    def _look_for_reset(self) -> None:
        assert self._browser is not None
        if self._browser.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.end(ReaderLeft())
