"""A group of the in-memory queue: its waiting messages, the running one, and the logs that are kept."""

from collections.abc import Callable
from dataclasses import dataclass, field

from bff.broker.queue.base import Message, MessageState, QueuePosition, StopReason
from bff.broker.queue.log import EventId, Log


@dataclass(eq=False)
class QueueEntry:
    message: Message
    group: "Group"
    updated_at: float
    unread_since: float
    enqueued_at: float
    state: MessageState = "queued"
    token: int = 0
    stop_reason: StopReason | None = None
    started: bool = False
    committed: bool = False
    restarts: int = 0
    client_key: tuple[str, str] | None = None
    """The key of its `client_message_id` in `State.client_ids`."""
    log: Log = field(default_factory=Log)
    readers: list[Callable[[], None]] = field(default_factory=list)
    rank: int = 0
    """Waiting messages of a group are processed in ascending order of rank."""
    foreign: bool = False
    """Whether another process, which may still be alive, processes it."""
    first_record: int = 0
    """The position of its first record in the journal."""
    withheld: tuple[int, int] | None = None
    """A position in the journal, and how many of the events may be read until that position is committed."""

    @property
    def ahead(self) -> int:
        """Number of messages of its group that are processed before it."""
        if self.state != "queued":
            return 0
        return self.group.waiting.index(self) + (self.group.running is not None)

    @property
    def may_be_cancelled(self) -> bool:
        """Whether it is to be cancelled on disconnect and has no readers."""
        return self.message.cancel_on_disconnect and not self.readers

    def is_unread_since(self, moment: float) -> bool:
        """Whether it is to be cancelled on disconnect and its last reader disconnected before `moment`."""
        if not self.may_be_cancelled or self.stop_reason or self.foreign or self.state == "finished":
            return False
        return self.unread_since < moment

    def wake_readers(self) -> None:
        for wake in self.readers:
            wake()

    def queue_position(self, position: int) -> QueuePosition:
        message = self.message
        stopping = self.stop_reason is not None
        return QueuePosition(message.id, self.state, position, message.run_scope, message.run_key, stopping)


@dataclass(eq=False)
class Group:
    mark: str
    waiting: list[QueueEntry] = field(default_factory=list)
    """Mostly empty: a deque would take 700 bytes all the same."""
    running: QueueEntry | None = None
    entries: dict[str, QueueEntry] = field(default_factory=dict)
    """All entries whose logs are kept, finished ones too, by message id."""

    def insert(self, entry: QueueEntry) -> None:
        """Inserts the entry among the waiting ones by rank."""
        index = sum(waiting.rank <= entry.rank for waiting in self.waiting)
        self.waiting.insert(index, entry)

    @property
    def active(self) -> list[QueueEntry]:
        """The running and the waiting entries, in order of processing."""
        return [entry for entry in (self.running, *self.waiting) if entry is not None and entry.state != "finished"]

    @property
    def joinable(self) -> list[QueueEntry]:
        """The active entries that were not asked to stop."""
        return [entry for entry in self.active if not entry.stop_reason]

    def find_run(self, message: Message) -> QueueEntry | None:
        """Returns the active entry of the message's run, if there is one."""
        if not message.run_scope:
            return None
        run = (message.run_scope, message.run_key)
        return next((entry for entry in self.joinable if (entry.message.run_scope, entry.message.run_key) == run), None)

    def is_scope_busy(self, scope: str) -> bool:
        return scope != "" and any(entry.message.run_scope == scope for entry in self.joinable)

    @property
    def positions(self) -> list[QueuePosition]:
        active = self.active
        first = 0 if active and active[0] is self.running else 1
        return [entry.queue_position(position) for position, entry in enumerate(active, start=first)]

    def locate(self, event_id: EventId) -> str | None:
        """Returns the id of the message whose log holds the event."""
        return next((message_id for message_id, entry in self.entries.items() if entry.log.holds(event_id)), None)
