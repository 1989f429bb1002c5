"""What a journal calls to apply the records it reads; implemented in `replay.py`."""

from typing import Protocol

from bff.broker.queue.journal.file import Record


class Replay(Protocol):
    """Every method is called with the queue's lock held."""

    def reset(self) -> None:
        """Discards everything that was applied."""

    def apply(self, record: Record, position: int) -> None:
        """Applies a record of another process, running or gone."""

    def follow(self) -> None:
        """Called once the records of a process that is still running, and draining, were applied."""

    def take_over(self) -> None:
        """Called once the process that wrote the applied records is gone: its messages belong to this process now."""

    def apply_request(self, record: Record) -> None:
        """Applies a request of the next process, about a message of this one."""

    def rewrite(self) -> None:
        """Records the whole state again."""
