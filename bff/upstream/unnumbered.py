"""Replies of an external broker that does not number its events.

Such a broker allows one stream per message: a second one would take over the reply, and closing the first would lose it and
block the user's next message. It processes one message of a user at a time, and drops a message that waits too long.
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from json import dumps
from time import monotonic
from typing import Any, Final, NamedTuple

from bff.auth.identity import Identity
from bff.errors import (
    AnswerIncomplete,
    ChatError,
    UpstreamError,
    UpstreamFailure,
    UpstreamTimeout,
    UpstreamUnavailable,
    detached,
)
from bff.http.sse import Event
from bff.http.waiting import Waiter
from bff.upstream import events
from bff.upstream.broker_client import BrokerClient
from bff.upstream.engine_client import EngineClient
from bff.upstream.http import EventSource
from bff.upstream.reconnect import MAX_RECONNECTS
from bff.upstream.relay import NO_SLOT

PAUSE_SECONDS: Final = 0.2
MAX_PAUSE_SECONDS: Final = 5.0
Steps = Generator[str | None, None, ChatError | None]


class Question(NamedTuple):
    """A message for the broker."""

    identity: Identity
    content: Mapping[str, Any]
    sent_at: float
    """UNIX seconds; an earlier turn of the engine's history is another message's."""


class _NoSlot(UpstreamTimeout):
    """The broker dropped the message before it was processed. Reopening its stream queues it again."""


class UnnumberedReply:
    def __init__(
        self, broker: BrokerClient, engine: EngineClient | None, question: Question, *, may_be_enqueued: bool = False
    ) -> None:
        """`engine`: its history may have a reply that the broker lost.

        `may_be_enqueued`: a process that died may have enqueued the message.
        """
        self._broker = broker
        self._engine = engine
        self._question = question
        self._may_be_enqueued = may_be_enqueued
        self._message_id = ""
        self._source: EventSource | None = None
        self._started = False
        """Whether output has begun."""
        self._failures = 0

    @property
    def open(self) -> bool:
        """Whether the broker may still be producing the reply: see `discard_rest`."""
        return self._source is not None

    def start(self, waiter: Waiter) -> None:
        """Enqueues the message and opens its stream.

        Raises an UpstreamFailure, TooManyRequests, and the reason if `waiter` is cancelled.
        """
        waiter.check()
        deadline = min(self._broker.open_deadline(), waiter.wake_at)
        self._message_id = self._broker.enqueue(self._question.identity, self._question.content, deadline, waiter).message_id
        self._reopen(waiter, deadline)

    def events(self, waiter: Waiter) -> Generator[str | None]:
        """The engine's events as JSON up to a terminal one, None at pauses. Starts the reply if `start` was not called.

        Raises an UpstreamFailure, TooManyRequests, and the reason if `waiter` is cancelled.
        """
        problem = (yield from self._read(waiter)) if self._source is not None else (yield from self._begin(waiter))
        while problem is not None:
            if found := self._find_in_history(waiter):
                yield found
                return
            if self._started or not isinstance(problem, UpstreamUnavailable):
                raise detached(problem)
            problem = yield from self._retry(problem, waiter)

    def discard_rest(self, waiter: Waiter) -> None:
        """Reads and discards the rest, until `waiter.wake_at`, so that the broker can process the user's next message.

        Raises the reason if `waiter` is cancelled.
        """
        if self._source is None:
            return
        with suppress(ChatError), closing(self):
            for _ in self._source.events(waiter):
                if monotonic() >= waiter.wake_at:
                    return

    def close(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.close()

    def _read(self, waiter: Waiter) -> Steps:
        """Reads the stream, reopening it whenever the broker had no slot. Returns what went wrong, None after the end."""
        pauses = _pauses()
        while True:
            problem = yield from self._read_once(waiter)
            if not isinstance(problem, _NoSlot):
                return problem
            yield from waiter.sleep(next(pauses))
            try:
                self._reopen(waiter)
            except UpstreamFailure as error:
                return detached(error)

    def _read_once(self, waiter: Waiter) -> Steps:
        assert self._source is not None
        try:
            for event in self._source.events(waiter):
                if event is None:
                    yield None
                elif event.event == "done":
                    break
                elif not self._started and NO_SLOT in event.data and _error_text(event) == NO_SLOT:
                    raise _NoSlot(detail=NO_SLOT)
                elif event.event == "error":
                    yield dumps({"type": "error", "error": _error_text(event)})
                    return None
                elif event.event not in {"queued", "processing"}:
                    self._started = True
                    yield event.data
        except UpstreamError:
            raise
        except UpstreamFailure as error:
            self.close()
            return detached(error)
        self.close()
        return AnswerIncomplete(detail="the broker's stream ended without a terminal event")

    def _begin(self, waiter: Waiter) -> Steps:
        """Starts the reply. If a process that died may have, first waits until the broker is idle and looks in the history."""
        pauses = _pauses()
        while self._may_be_enqueued and self._is_broker_busy():
            yield from waiter.sleep(next(pauses))
        if self._may_be_enqueued and (found := self._find_in_history(waiter)):
            yield found
            return None
        try:
            self.start(waiter)
        except (UpstreamUnavailable, UpstreamTimeout) as error:
            return UpstreamUnavailable(detail=error.detail)  # `events` retries this class only.
        return (yield from self._read(waiter))

    def _retry(self, problem: ChatError, waiter: Waiter) -> Steps:
        """Reopens the stream of a reply that has not begun, or enqueues the message again if the broker lost it."""
        while self._failures < MAX_RECONNECTS:
            yield from waiter.sleep(PAUSE_SECONDS * 2**self._failures)
            self._failures += 1
            try:
                occupancy = self._broker.occupancy(self._question.identity.user_id)
                if self._message_id and (occupancy.waiting or occupancy.current == self._message_id):
                    self._reopen(waiter)
                else:
                    self.start(waiter)
            except UpstreamFailure:
                continue
            return (yield from self._read(waiter))
        raise detached(problem)

    def _is_broker_busy(self) -> bool:
        """Whether the broker is processing messages of the user; False if it is unreachable."""
        try:
            occupancy = self._broker.occupancy(self._question.identity.user_id)
        except UpstreamFailure:
            return False
        return occupancy.current is not None or occupancy.waiting > 0

    def _reopen(self, waiter: Waiter, deadline: float | None = None) -> None:
        self.close()
        deadline = deadline or min(self._broker.open_deadline(), waiter.wake_at)
        self._source = self._broker.open_stream(self._question.identity.user_id, self._message_id, deadline, waiter)

    def _find_in_history(self, waiter: Waiter) -> str | None:
        """A `complete` event from the engine's newest turn, if it is this message's: then only its delivery failed."""
        text = self._question.content.get("message")
        if self._engine is None or not text:
            return None
        try:
            turns = self._engine.newest(self._question.identity, 1, 0, waiter).entries
        except ChatError:
            return None
        turn = turns[0] if turns else {}
        reply = turn.get("assistant_response")
        if turn.get("user_message") != text or not isinstance(reply, str) or _replied_at(turn) < self._question.sent_at:
            return None
        extra = {name: turn[name] for name in ("voice_audio_url", "attachments") if turn.get(name)}
        return events.event({"type": "complete", "response": events.response([reply]) | extra}).data


def _pauses() -> Iterator[float]:
    """Seconds, doubling."""
    seconds = PAUSE_SECONDS
    while True:
        yield seconds
        seconds = min(2 * seconds, MAX_PAUSE_SECONDS)


def _error_text(event: Event) -> str:
    """The text of an error event, or of a message of type "error"; the event's data if it has none."""
    content = events.parse(event.data)
    text = content.get("error") if isinstance(content, dict) else content
    return text if isinstance(text, str) else event.data


def _replied_at(turn: Mapping[str, Any]) -> float:
    """UNIX seconds; 0 if the turn has no timestamp."""
    for name in ("created_at", "timestamp"):
        with suppress(TypeError, ValueError):
            moment = datetime.fromisoformat(turn[name]) if name in turn else None
            if moment is not None:
                return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return 0.0
