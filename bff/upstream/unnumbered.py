"""A reply of an external broker that does not number its events: the message is left there, and its one stream read to the end.

Such a broker allows one stream for each message: a second one would steal the reply, and closing the first would lose it and
hold up the user's next message. It answers one message of a user at a time, and gives up one that waits for too long.
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
    """What is left with the broker."""

    identity: Identity
    content: Mapping[str, Any]
    asked_at: float
    """UNIX seconds: a turn of the engine's history from before is another one."""


class _NoSlot(UpstreamTimeout):
    """The broker gave the message up before it was answered. Opening its stream again puts it in line again."""


class UnnumberedReply:
    def __init__(
        self, broker: BrokerClient, engine: EngineClient | None, question: Question, *, left_before: bool = False
    ) -> None:
        """`engine`: whose history may hold a reply that the broker lost. `left_before`: by a process that died."""
        self._broker = broker
        self._engine = engine
        self._question = question
        self._left_before = left_before
        self._message_id = ""
        self._source: EventSource | None = None
        self._started = False
        """Whether something of the reply was told."""
        self._failures = 0

    @property
    def open(self) -> bool:
        """Whether the broker may go on with it: see `read_out`."""
        return self._source is not None

    def start(self, waiter: Waiter) -> None:
        """Leaves the message and opens its stream. Raises an UpstreamFailure, TooManyRequests, and what ends `waiter`."""
        waiter.check()
        deadline = min(self._broker.open_deadline(), waiter.wake_at)
        self._message_id = self._broker.enqueue(self._question.identity, self._question.content, deadline, waiter).message_id
        self._reopen(waiter, deadline)

    def events(self, waiter: Waiter) -> Generator[str | None]:
        """The engine's events as JSON, None at pauses. Starts the reply if `start` was not called.

        Ends after a terminal event. Raises an UpstreamFailure, TooManyRequests, and what ends `waiter`.
        """
        problem = (yield from self._read(waiter)) if self._source is not None else (yield from self._take_over(waiter))
        while problem is not None:
            if found := self._found_in_history(waiter):
                yield found
                return
            if self._started or not isinstance(problem, UpstreamUnavailable):
                raise detached(problem)
            problem = yield from self._begin_again(problem, waiter)

    def read_out(self, waiter: Waiter) -> None:
        """Reads what is still to come and drops it, until `waiter.due`: then the broker is free for the user's next message.

        Raises what ends `waiter`.
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
        """Reads the stream, opened again as often as the broker had no slot for it; what went wrong, None after the end."""
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
        return AnswerIncomplete(detail="the broker's stream ended without an end of the reply")

    def _take_over(self, waiter: Waiter) -> Steps:
        """Where a process before has left the message, waits until the broker is done with it, and has no reply of it."""
        pauses = _pauses()
        while self._left_before and self._may_be_at_it():
            yield from waiter.sleep(next(pauses))
        if self._left_before and (found := self._found_in_history(waiter)):
            yield found
            return None
        try:
            self.start(waiter)
        except (UpstreamUnavailable, UpstreamTimeout) as error:
            return UpstreamUnavailable(detail=error.detail)  # A timeout of a reply that has begun is another matter.
        return (yield from self._read(waiter))

    def _begin_again(self, problem: ChatError, waiter: Waiter) -> Steps:
        """Of a reply that has not begun: opens its stream again, or leaves the message once more where the broker lost it."""
        while self._failures < MAX_RECONNECTS:
            yield from waiter.sleep(PAUSE_SECONDS * 2**self._failures)
            self._failures += 1
            try:
                found = self._broker.occupancy(self._question.identity.user_id)
                if self._message_id and (found.waiting or found.current == self._message_id):
                    self._reopen(waiter)
                else:
                    self.start(waiter)
            except UpstreamFailure:
                continue
            return (yield from self._read(waiter))
        raise detached(problem)

    def _may_be_at_it(self) -> bool:
        """Whether the broker answers the user's messages just now."""
        try:
            found = self._broker.occupancy(self._question.identity.user_id)
        except UpstreamFailure:
            return False
        return found.current is not None or found.waiting > 0

    def _reopen(self, waiter: Waiter, deadline: float | None = None) -> None:
        self.close()
        deadline = deadline or min(self._broker.open_deadline(), waiter.wake_at)
        self._source = self._broker.open_stream(self._question.identity.user_id, self._message_id, deadline, waiter)

    def _found_in_history(self, waiter: Waiter) -> str | None:
        """The engine's newest turn, if it is this very message: then the reply was only lost on its way."""
        text = self._question.content.get("message")
        if self._engine is None or not text:
            return None
        try:
            turns = self._engine.newest(self._question.identity, 1, 0, waiter).entries
        except ChatError:
            return None
        turn = turns[0] if turns else {}
        reply = turn.get("assistant_response")
        if turn.get("user_message") != text or not isinstance(reply, str) or _answered_at(turn) < self._question.asked_at:
            return None
        more = {name: turn[name] for name in ("voice_audio_url", "attachments") if turn.get(name)}
        return events.event({"type": "complete", "response": events.response([reply]) | more}).data


def _pauses() -> Iterator[float]:
    """Seconds, doubling."""
    seconds = PAUSE_SECONDS
    while True:
        yield seconds
        seconds = min(2 * seconds, MAX_PAUSE_SECONDS)


def _error_text(event: Event) -> str:
    """Of an error, named or a message of that type, what it says; of anything else, the whole of it."""
    content = events.parsed(event.data)
    text = content.get("error") if isinstance(content, dict) else content
    return text if isinstance(text, str) else event.data


def _answered_at(turn: Mapping[str, Any]) -> float:
    """UNIX seconds; 0 where the turn does not say."""
    for name in ("created_at", "timestamp"):
        with suppress(TypeError, ValueError):
            moment = datetime.fromisoformat(turn[name]) if name in turn else None
            if moment is not None:
                return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return 0.0
