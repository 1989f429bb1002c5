"""What a queue can do: the contract of `memory.py`, and of whatever else may keep messages and their logs.

Messages of one group are answered one after the other, in order; groups do not wait for each other. A user has a group of
their own, and any number of others, such as one for each conversation; which group a message belongs to is part of its id
(bff/upstream/message_ids.py). A message is claimed by one worker, which writes the answer into the message's log; any number of
readers follow the log, from any place. A log's last event is always `done`. Where the queue is elsewhere, each verb may
raise `StorageUnavailable`; a worker that then repeats the same call has it done once; only `release` then raises Lost.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Literal, NamedTuple, Protocol

from bff.http.sse import Event

PAGE_EVENTS: Final = 500
"""Of one page, at most: a log may be of any length."""

MAX_RESTARTS: Final = 3
"""Of one answer that is begun anew after some of it was told."""

MANY_WAITING: Final = "Too many of your messages are waiting."
LONG_ANSWER: Final = "The answer is too long to be kept."

State = Literal["queued", "running", "finished"]
StopReason = Literal["stopped", "unread"]
"""Why a running message shall end: its user wishes it, or its last reader has left."""
LogEntry = tuple[str, str]
"""An event's type and data; the log gives the id."""


class Message(NamedTuple):
    id: str
    user_id: str
    content: dict[str, Any]
    """What the engine is told."""
    size: int = 0
    """Bytes of memory that `content` takes, about."""
    cancel_on_disconnect: bool = False
    """Whether nobody needs the answer once its last reader has left."""
    trace: str = ""
    """Which request left it: see bff/http/tracing.py."""
    handler: str = "engine"
    """Who answers it: "engine", the configured one; "bundled", the bundled engine whatever is configured; or "external", an
    external broker that does not number its events.
    """
    run_scope: str = ""
    """What at most one message of a group waits or runs for, such as a conversation; "" for no such bound."""
    run_key: str = ""
    """Within `run_scope`, what is asked for: who asks for the same while it waits or runs joins it."""
    repeatable: bool = False
    """Whether the answer may be begun again after some of it was told, once its worker is gone."""


class Claim(NamedTuple):
    message: Message
    token: int
    """The fencing token: of two claims of a message the later has the greater, and only it can write."""
    waited: float = 0.0
    """Seconds from when the message was left."""
    begun: bool = False
    """A worker before has committed the answer and told some of it: it may be stored. Where it is not, see `restart`."""


class Receipt(NamedTuple):
    message_id: str
    ahead: int
    """Messages of this group to be answered before it, the running one included."""
    claim: Claim | None = None
    """Where the message was claimed as it was enqueued."""


class QueuePosition(NamedTuple):
    message_id: str
    state: State
    position: int
    """Messages of this group waiting ahead, plus 1; 0 while it is running."""
    run_scope: str = ""
    run_key: str = ""
    stopping: bool = False
    """Whether it runs, and was told to stop."""


class Page(NamedTuple):
    events: Sequence[Event]
    over: bool
    """Whether the log has ended: nothing will come after these."""
    more: bool = False
    """Whether there may be more to read at once: nobody is woken for it."""


class Limits(NamedTuple):
    depth_per_user: int = 20
    log_bytes: int = 32 * 1024 * 1024
    """Of one message's log, and of all finished ones together (with Redis: of one group's): then the oldest go."""
    waiting_bytes: int = 256 * 1024 * 1024
    """Of all messages that wait or run in this process's memory. Redis has a bound of its own."""
    retention: float = 600.0
    """Seconds after its end."""
    grace: float = 5.0
    """Seconds without a reader after which an answer that is for its readers only is stopped."""


class Counts(NamedTuple):
    queues: int
    running: int


class LeaseLost(Exception):
    """The claim is no longer valid: its message has another worker, or an end."""


class Queue(Protocol):
    @property
    def survives_restart(self) -> bool:
        """Whether messages and logs outlive this process; if not, the worker has to finish them before it stops."""

    def open(self) -> None:
        """Loads what an earlier process stored. Idempotent; called before the first use where the queue survives a restart."""

    def check_writes(self) -> None:
        """For health checks. Raises StorageUnavailable or ServerFull if the storage cannot take new messages."""

    def draining(self) -> AbstractContextManager[None]:
        """Entered while this process's worker drains.

        From entry on, the process that replaces this one may claim what this one does not finish; at exit it takes over the
        storage. Logs can still be read afterwards.
        """

    def close(self) -> None:
        """Closes files and connections. Idempotent."""

    def enqueue(self, message: Message, client_message_id: str | None, on_busy: str, *, claim: bool = False) -> Receipt:
        """Keeps the message; the same `client_message_id` in the same group finds the one that is kept already.

        With `claim` the message is claimed for the caller, if nothing of its group runs or waits.

        With a `run_scope`, a message of the same `run_key` that waits or runs is found instead; one that was told to stop
        counts as over, and the new one waits for its end. Raises
        IdempotencyConflict when the message of that `client_message_id` says something else, Expired when its log is
        gone, TooManyRequests when too many of this group's messages wait, ServerFull when too many bytes do, Busy when
        `on_busy` is "reject" and one of this group's runs or waits, or one of the same `run_scope` and another `run_key`.
        """

    def claim(self, timeout: float) -> Claim | None:
        """The next message of a group that is not being answered; None after `timeout` seconds without one."""

    def claim_next(self, after: Message, handler: str) -> Claim | None:
        """The next message of the group of `after`, if nothing of it runs and this is its handler."""

    def renew(self, claim: Claim) -> StopReason | None:
        """A sign of life; whether and why it shall stop, for whoever was not there to hear it. Raises Lost."""

    def release(self, claim: Claim) -> None:
        """Hands it back: somebody else may claim the message, first of its group's. Raises Lost.

        If it has said something and was not committed, it begins anew with a `restart` in its log, at most MAX_RESTARTS
        times and where the message is repeatable; else it ends.
        """

    def restart(self, claim: Claim) -> bool:
        """Begins a claim anew that was `begun`, as its answer was not stored; whether it may: see `release`. Raises Lost.

        Then its log says `restart`, it is not committed any more, and nothing of it counts as told.
        """

    def append(self, claim: Claim, entries: Sequence[LogEntry], *, started: bool = True) -> None:
        """Writes into the log; `started`: this is the answer itself, which must not be begun again.

        Raises Lost; TooLarge when the log has grown over its bound; ServerFull while there is no memory for it: it may
        be repeated.
        """

    def commit(self, claim: Claim) -> bool:
        """Whether the answer may be stored: not once it was told to stop. Afterwards nothing stops it. Raises Lost."""

    def finish(self, claim: Claim, entries: Sequence[LogEntry], *, forget: bool = False) -> None:
        """Writes the last words and `done`; the group's next message may be claimed. Raises Lost.

        `forget`: its `client_message_id` is free again, for a message that could not be passed on.
        """

    def conclude(self, claim: Claim, entries: Sequence[LogEntry]) -> None:
        """Writes the last words and `done`, but keeps the claim: the group's next message waits for `finish` without words.

        The message counts as finished for everybody but its worker: nobody can stop it, and it has no place. Raises Lost.
        """

    def read(self, user_id: str, message_id: str, after: str) -> Page:
        """A page of the events after the id `after`, from the first one for "", oldest first; does not wait.

        Raises NotFound for a message that this user never had, Expired when its log is gone, InvalidRequest for an id
        that is none of ours.
        """

    def subscribe(self, user_id: str, message_id: str, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """While it is entered, there is a reader, and `wake` is called from anywhere when there may be more to read.

        `wake` must neither block nor ask the queue.
        """

    def locate(self, user_id: str, group: str, event_id: str) -> str | None:
        """The message of this group, running or finished, whose log holds the event `event_id`."""

    def stop(self, user_id: str, message_id: str) -> None:
        """Takes a waiting message out, tells a running one's worker to stop; does nothing to one that is finished or
        committed. Raises NotFound, Expired.
        """

    def cancel_if_no_readers(self, user_id: str, message_id: str) -> None:
        """Like `stop`, at once, for a message that is for its readers only and has none now in any process.

        Readers of a process that died, or that was drained, count until their grace is over. Raises NotFound, Expired.
        """

    def continue_without_readers(self, user_id: str, message_id: str) -> None:
        """From now on the message is answered whether anybody reads it or not. Raises NotFound, Expired."""

    def on_stop(self, tell: Callable[[str, StopReason], None]) -> None:
        """`tell` is called, from anywhere, with the id of each running message that shall stop."""

    def positions(self, user_id: str, group: str = "") -> list[QueuePosition]:
        """The group's messages that run or wait, in order."""

    def sweep(self) -> None:
        """Lets go of what is too old and stops what nobody reads any more; to be called about once a second."""

    def has_workers(self) -> bool:
        """Whether anybody answers what is left here."""

    def counts(self) -> Counts: ...

    def waiting(self) -> int:
        """Messages that wait, of all groups. Where there are very many groups, of the first ones only."""
