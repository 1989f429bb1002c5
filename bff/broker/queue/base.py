"""The contract of a queue: its types and the `Queue` protocol, implemented in `memory.py` and `redis/`.

Messages of one group are processed one after the other, in order; groups are independent of each other. Each user has a
default group and any number of others, such as one per conversation; the group is part of the message's id
(bff/upstream/message_ids.py). One worker claims a message and writes the reply into the message's log; any number of readers
follow the log from any position. The last event of a log is always `done`.

Where the storage is remote, each method may raise `StorageUnavailable`. A worker may then repeat the same call: it takes effect
once. Only `release` raises LeaseLost if the first call had succeeded.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Literal, NamedTuple, Protocol

from bff.broker.queue.deliveries import Deliveries
from bff.http.sse import Event

PAGE_EVENTS: Final = 500
"""Maximum number of events per page: a log may be of any length."""

MAX_RESTARTS: Final = 3
"""Maximum number of restarts of a reply whose output had started."""

MAX_CLAIMS: Final = 5
"""Maximum number of claims of a message whose workers die: one that kills them is not retried forever."""

TOO_MANY_WAITING: Final = "Too many of your messages are waiting."
REPLY_TOO_LONG: Final = "The answer is too long to be kept."

MessageState = Literal["queued", "running", "finished"]
StopReason = Literal["stopped", "unread"]
"""Why a running message has to stop: the user asked for it, or its last reader disconnected."""
LogEntry = tuple[str, str]
"""An event's type and data; the log assigns the id."""


class Message(NamedTuple):
    id: str
    user_id: str
    content: dict[str, Any]
    """The body of the request to the engine."""
    size: int = 0
    """Approximate bytes of memory used by `content`."""
    cancel_on_disconnect: bool = False
    """Whether to cancel the message once its last reader has disconnected."""
    trace: str = ""
    """The trace context of the request that enqueued it: see bff/http/tracing.py."""
    handler: str = "engine"
    """What produces the reply: "engine", the configured engine; "bundled", always the bundled engine; or "external", an
    external broker that does not number its events.
    """
    run_scope: str = ""
    """At most one run per scope, such as a conversation, may wait or run in a group; "" for no such limit."""
    run_key: str = ""
    """Identifies a run within `run_scope`: a message with the key of a waiting or running one joins it.

    Without a `run_scope` it has no effect on the queue: a message of direct chat has its client's chat id here.
    """
    repeatable: bool = False
    """Whether the reply may be restarted after its output has started, if its worker is lost."""
    webhook: str = ""
    """Where the end is to be delivered: see `webhook_of` in deliveries.py. "" for nowhere."""


class Claim(NamedTuple):
    message: Message
    token: int
    """The fencing token. It grows with each claim of a message; only the latest claim can write."""
    waited: float = 0.0
    """Seconds since the message was enqueued."""
    was_started: bool = False
    """An earlier worker committed the reply after output had started: it may have been stored. If it was not, see `restart`."""
    nonce: str = ""
    """Where replication is asynchronous, a fail-over may lose a claim, and the next one gets the same token."""


class Receipt(NamedTuple):
    message_id: str
    ahead: int
    """Number of messages of this group that are processed before it, including the running one."""
    claim: Claim | None = None
    """Set if the message was claimed as it was enqueued."""


class QueuePosition(NamedTuple):
    message_id: str
    state: MessageState
    position: int
    """Number of messages of this group waiting ahead, plus 1; 0 while it is running."""
    run_scope: str = ""
    run_key: str = ""
    stopping: bool = False
    """Whether it is running and has been asked to stop."""


class Page(NamedTuple):
    events: Sequence[Event]
    ended: bool
    """Whether the log has ended: no events follow these."""
    has_more: bool = False
    """Whether more events may be available now. Readers are not woken for them."""


class Limits(NamedTuple):
    depth_per_user: int = 20
    log_bytes: int = 32 * 1024 * 1024
    """Maximum size of a message's log, and of all finished logs (in Redis: per group); the oldest are removed first."""
    waiting_bytes: int = 256 * 1024 * 1024
    """Maximum size of all waiting and running messages in this process's memory. Redis has a limit of its own."""
    retention: float = 600.0
    """Seconds for which a finished log is kept."""
    grace: float = 5.0
    """Seconds without a reader after which a message with `cancel_on_disconnect` is cancelled."""


class Counts(NamedTuple):
    queues: int
    running: int


class LeaseLost(Exception):
    """The claim is no longer valid: another worker has the message, or the message has finished."""


class Queue(Protocol):
    @property
    def deliveries(self) -> Deliveries:
        """Of webhooks. Whatever ends a message stores its deliveries together with the end."""

    @property
    def survives_restart(self) -> bool:
        """Whether messages and logs outlive this process; if not, the worker has to finish them before it stops."""

    def open(self) -> None:
        """Loads what an earlier process stored. Idempotent; called before the first use where the queue survives a restart."""

    def check_writes(self) -> None:
        """For health checks. Raises StorageUnavailable or ServerFull if the storage cannot take new messages."""

    def draining(self) -> AbstractContextManager[None]:
        """Entered while this process's worker drains.

        From entry on, the process that replaces this one may claim what this one does not finish; at exit it takes over
        the storage. Logs can still be read afterwards.
        """

    def close(self) -> None:
        """Closes files and connections. Idempotent."""

    def enqueue(self, message: Message, client_message_id: str | None, on_busy: str, *, claim: bool = False) -> Receipt:
        """Stores the message. A repeated `client_message_id` in the same group returns the stored message's receipt.

        With a `run_scope`, a waiting or running message with the same `run_key` is returned instead; one that was asked to
        stop does not count, and the new message waits for its end. With `claim`, the message is claimed for the caller if no
        other of its group waits or runs.

        `on_busy`, if the group is active: "enqueue" appends; "interrupt" stops the running message and comes next; "reject"
        raises Busy. Raises Busy too if a run of the same `run_scope` and another `run_key` is active; IdempotencyConflict if
        the message stored under the `client_message_id` has other content; Expired if its log was removed; TooManyRequests if
        too many messages of this group wait; ServerFull if all waiting messages take too much memory.
        """

    def claim(self, timeout: float) -> Claim | None:
        """Claims the next message of a group of which none is running; None after `timeout` seconds without one."""

    def claim_for(self, handler: str) -> Claim | None:
        """Claims the next message of any group, if it has this handler; does not wait. With very many groups, of the first."""

    def claim_next(self, after: Message, handler: str) -> Claim | None:
        """Claims the next message of the group of `after`, if it has this handler and no message of the group is running."""

    def renew(self, claim: Claim) -> StopReason | None:
        """Renews the lease. Returns the reason if the message has to stop, in case an `on_stop` call was missed.

        Raises LeaseLost.
        """

    def release(self, claim: Claim) -> None:
        """Gives the claim back: another worker may claim the message, as the first of its group. Raises LeaseLost.

        If output has started and was not committed, a repeatable message restarts with a `restart` event, at most
        MAX_RESTARTS times; any other finishes.
        """

    def restart(self, claim: Claim) -> bool:
        """Restarts a committed claim whose reply is not the stored one. Returns whether it may: see `release`.

        If so, it writes a `restart` event into the log and resets `committed` and `started`. Raises LeaseLost.
        """

    def append(self, claim: Claim, entries: Sequence[LogEntry], *, started: bool = True) -> None:
        """Appends to the log. `started`: the entries are output, after which the message is not simply retried.

        Raises LeaseLost; TooLarge if the log exceeds its limit; ServerFull if there is no memory, after which the call may be
        repeated.
        """

    def commit(self, claim: Claim) -> bool:
        """Returns whether the reply may be stored: not if it was asked to stop. Later stops are ignored. Raises LeaseLost."""

    def finish(self, claim: Claim, entries: Sequence[LogEntry], *, forget: bool = False) -> None:
        """Appends the final entries and `done`; the group's next message may be claimed. Raises LeaseLost.

        `forget`: its `client_message_id` may be used again, for a message that could not be passed on.
        """

    def conclude(self, claim: Claim, entries: Sequence[LogEntry]) -> None:
        """Appends the final entries and `done` but keeps the claim until `finish` is called without entries.

        Until then the group's next message waits. To all but its worker the message is finished: it cannot be stopped and has
        no queue position. Raises LeaseLost.
        """

    def read(self, user_id: str, message_id: str, after: str) -> Page:
        """Returns the events after the id `after`, or from the first one for "", oldest first. Does not wait.

        Raises NotFound for a message this user never had, Expired if its log was removed, InvalidRequest for a malformed id.
        """

    def subscribe(
        self, user_id: str, message_id: str, wake: Callable[[], None], *, cancel_on_disconnect: bool = False
    ) -> AbstractContextManager[None]:
        """Registers a reader while entered. `wake` is called, from any thread, when there may be more events to read.

        `wake` must neither block nor call the queue. `cancel_on_disconnect`: the message may have it, so that other processes
        must know this reader once it is entered; otherwise they may learn of it a second later.
        """

    def locate(self, user_id: str, group: str, event_id: str) -> str | None:
        """Returns the id of the group's message, running or finished, whose log holds the event `event_id`."""

    def find(self, user_id: str, group: str, client_message_id: str) -> str | None:
        """Returns the id of the group's message with this `client_message_id`; None if it is unknown. Its log may be gone."""

    def stop(self, user_id: str, message_id: str) -> None:
        """Finishes a waiting message and asks a running one's worker to stop; does nothing to a finished or committed one.

        Raises NotFound, Expired.
        """

    def cancel_if_no_readers(self, user_id: str, message_id: str) -> None:
        """Like `stop`, for a message with `cancel_on_disconnect` that has no readers in any process.

        Readers of a process that died or was drained count until their grace has passed. Raises NotFound, Expired.
        """

    def continue_without_readers(self, user_id: str, message_id: str) -> None:
        """Clears the message's `cancel_on_disconnect`. Raises NotFound, Expired."""

    def on_stop(self, callback: Callable[[str, StopReason], None]) -> None:
        """Registers a callback, called from any thread with the id of each running message that has to stop."""

    def positions(self, user_id: str, group: str = "") -> list[QueuePosition]:
        """Returns the group's running and waiting messages, in order."""

    def sweep(self) -> None:
        """Removes what has expired and cancels messages without readers; to be called about once a second."""

    def has_workers(self) -> bool:
        """Whether a worker processes the queue."""

    def counts(self) -> Counts: ...

    def waiting(self) -> int:
        """Number of waiting messages of all groups; with very many groups, of the first ones only."""
