"""The waiter of an in-process service, whose stream is produced in its reader's own greenlet or thread."""

from collections.abc import Iterator
from math import inf
from time import monotonic

from bff.errors import ClientDisconnected
from bff.http.waiting.base import HasDescriptor, Waiter


class InnerWaiter(Waiter):
    """Waits with a waiter borrowed from its reader, and only while it has one."""

    nested = True

    def __init__(self, expires_at: float) -> None:
        super().__init__(None)
        self.expires_at = expires_at
        """The moment (monotonic) after which the reader counts as gone."""
        self.was_aborted = False
        self.has_waited = False
        """Whether it waited since it borrowed its waiter, so that other greenlets have run."""
        self._outer: Waiter | None = None
        self._outer_deadline = inf

    def borrow(self, outer: Waiter | None, deadline: float = inf) -> None:
        """`deadline`: the moment (monotonic) at which the reader wants to be awake. None gives the waiter back."""
        self._outer, self._outer_deadline = outer, deadline
        self.has_waited = self.has_waited and outer is None

    def _sleep(self, upstream: HasDescriptor | None, deadline: float) -> None:
        if self._outer is None or monotonic() >= self.expires_at:
            raise ClientDisconnected
        self.has_waited = True
        try:
            self._outer.wait(upstream, min(deadline, self._outer_deadline, self.expires_at))
        except Exception as error:
            raise ClientDisconnected from error  # Whatever ended the reader, for its upstream it has disconnected.

    def confirm_connected(self) -> Iterator[None]:
        if self._outer is None:
            raise ClientDisconnected
        try:
            yield from self._outer.confirm_connected()
        except Exception as error:
            raise ClientDisconnected from error

    def wake(self) -> None:
        self._woken = True
        if (outer := self._outer) is not None:  # Otherwise it sees `_woken` before it sleeps.
            outer.wake()

    def abort(self) -> None:
        self.was_aborted = True
        self.cancel(ClientDisconnected())

    def close(self) -> None:
        """Does nothing: it owns nothing."""
