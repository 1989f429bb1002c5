"""A waiting place inside another: of a stream that is made where it is read, in its reader's own greenlet or thread."""

from collections.abc import Iterator
from math import inf
from time import monotonic

from bff.errors import ReaderLeft
from bff.http.waiting import HasDescriptor, Watch


class Nested(Watch):
    """Waits at its reader's place, and only while it is lent: between its waits the reader looks after itself."""

    nested = True

    def __init__(self, deadline: float) -> None:
        super().__init__(None)
        self.deadline = deadline
        """The moment (monotonic) after which nobody waits for it any more."""
        self.was_cut = False
        self.has_waited = False
        """Since the place was lent: others have had their turn."""
        self._reader: Watch | None = None
        self._until = inf

    def lend(self, reader: Watch | None, until: float = inf) -> None:
        """`until` is a moment (monotonic) at which the reader wants to be awake. None takes the place back."""
        self._reader, self._until = reader, until
        self.has_waited = self.has_waited and reader is None

    def _sleep(self, upstream: HasDescriptor | None, until: float) -> None:
        if self._reader is None or monotonic() >= self.deadline:
            raise ReaderLeft  # Nobody waits for it.
        self.has_waited = True
        try:
            self._reader.wait(upstream, min(until, self._until, self.deadline))
        except Exception as error:
            raise ReaderLeft from error  # What ends the reader is the reader's affair: here it has hung up.

    def make_sure(self) -> Iterator[None]:
        """Whether the reader is there its own place knows."""
        if self._reader is None:
            raise ReaderLeft
        try:
            yield from self._reader.make_sure()
        except Exception as error:
            raise ReaderLeft from error

    def wake(self) -> None:
        self._woken = True
        if (reader := self._reader) is not None:  # Else it will find out before it sleeps.
            reader.wake()

    def cut(self) -> None:
        self.was_cut = True
        self.end(ReaderLeft())

    def close(self) -> None:
        """Nothing: all it has is lent."""
