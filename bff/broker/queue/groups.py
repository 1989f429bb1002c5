"""What the in-memory queue keeps of a group: its messages that wait, the one that runs, and the logs that are kept."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from bff.broker.queue.base import Message, QueuePosition, State, StopReason
from bff.broker.queue.log import Log, Number


@dataclass(eq=False)
class QueueEntry:
    message: Message
    group: "Group"
    touched: float
    unread_since: float
    left_at: float
    state: State = "queued"
    token: int = 0
    stopping: StopReason | None = None
    started: bool = False
    committed: bool = False
    restarts: int = 0
    client_key: tuple[str, str] | None = None
    """Under which its client's own id is remembered."""
    log: Log = field(default_factory=Log)
    readers: list[Callable[[], None]] = field(default_factory=list)
    rank: int = 0
    """Of two messages of a group that wait, the one with the lower rank is answered first."""
    foreign: bool = False
    """Whether another process, which may still be there, answers it."""
    since: int = 0
    """The position of its first record in the journal."""
    held: tuple[int, int] | None = None
    """A position in the journal, and how many of the events may be read until that is committed."""

    @property
    def ahead(self) -> int:
        """Messages of its group to be answered before it."""
        if self.state != "queued":
            return 0
        return self.group.waiting.index(self) + (self.group.running is not None)

    @property
    def may_be_cancelled(self) -> bool:
        """Whether it is for its readers only, and none is left."""
        return self.message.cancel_on_disconnect and not self.readers

    def is_unread_since(self, moment: float) -> bool:
        """Whether it is for its readers only, and the last one left before `moment`."""
        if not self.may_be_cancelled or self.stopping or self.foreign or self.state == "finished":
            return False
        return self.unread_since < moment

    def wake(self) -> None:
        for one in self.readers:
            one()

    def queue_position(self, position: int) -> QueuePosition:
        message = self.message
        return QueuePosition(message.id, self.state, position, message.run_scope, message.run_key, self.stopping is not None)


@dataclass(eq=False)
class Group:
    mark: str
    waiting: deque[QueueEntry] = field(default_factory=deque)
    running: QueueEntry | None = None
    entries: dict[str, QueueEntry] = field(default_factory=dict)
    """Those whose logs are kept, finished ones too, by message id."""

    def insert(self, entry: QueueEntry) -> None:
        """Among those that wait, by rank."""
        after = sum(waiting.rank <= entry.rank for waiting in self.waiting)
        self.waiting.insert(after, entry)

    @property
    def active(self) -> list[QueueEntry]:
        """In the order in which they are answered."""
        return [entry for entry in (self.running, *self.waiting) if entry is not None and entry.state != "finished"]

    @property
    def runs(self) -> list[QueueEntry]:
        """Those that may be joined: one that was told to stop is as good as over."""
        return [entry for entry in self.active if not entry.stopping]

    def same_run(self, message: Message) -> QueueEntry | None:
        """The entry that waits or runs for what `message` asks for."""
        run = (message.run_scope, message.run_key)
        runs = self.runs if message.run_scope else ()
        return next((entry for entry in runs if (entry.message.run_scope, entry.message.run_key) == run), None)

    def runs_for(self, scope: str) -> bool:
        return scope != "" and any(entry.message.run_scope == scope for entry in self.runs)

    @property
    def positions(self) -> list[QueuePosition]:
        active = self.active
        first = 0 if active and active[0] is self.running else 1
        return [entry.queue_position(position) for position, entry in enumerate(active, start=first)]

    def locate(self, number: Number) -> str | None:
        """The message whose log holds the event of this number."""
        return next((message_id for message_id, entry in self.entries.items() if entry.log.holds(number)), None)
