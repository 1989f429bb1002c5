"""Passes the user's last message on to the configured broker, or engine, and tells its answer in pieces.

Whoever answers there knows its users' history itself. The bundled broker is never asked: a reply that waits for a second one
would hold the place among the running answers that the second one needs.
"""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from time import monotonic
from typing import NamedTuple, Protocol

from bff.auth.identity import Identity
from bff.engine.agents.base import last_user_message
from bff.errors import ChatError, Interrupted, detached
from bff.http import waiting
from bff.http.sse import Event
from bff.http.waiting import Waiter
from bff.http.waiting.background import in_background
from bff.upstream import events
from bff.upstream.agents import BROKER
from bff.upstream.broker_client import BrokerClient
from bff.upstream.engine_client import EngineClient
from bff.upstream.messages import ChatMessage, ChatRequest
from bff.upstream.relay import Relay
from bff.upstream.unnumbered import Question, UnnumberedReply


class Answer(Protocol):
    def events(self, waiter: Waiter) -> Iterator[Event | None]: ...

    def close(self) -> None:
        """Once it has come to its end."""

    def give_up(self) -> None:
        """Before: whoever writes it shall stop."""


class Upstream(Protocol):
    def ask(self, identity: Identity, text: str, waiter: Waiter) -> Answer:
        """Raises an UpstreamFailure, and what ends `waiter` meanwhile."""


class Broker:
    id = BROKER
    name = "Broker"
    description = "Answers through the message queue and the engine behind it."
    repeatable = False

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def stream(self, history: Sequence[ChatMessage], identity: Identity, waiter: Waiter) -> Generator[str | None]:
        text = last_user_message(history)
        answer = yield from in_background(
            lambda place: self._upstream.ask(identity, text, place), waiter, lambda late: late.give_up()
        )
        relay = Relay("")
        try:
            yield from _pieces(relay, answer, waiter)
        finally:
            if relay.ended in events.TERMINAL:
                answer.close()
            else:
                answer.give_up()  # Also where an error ended it here: the engine may still be at it.


class OpenReplies:
    """By user, the replies in this process that are not read to their end yet, whether anybody still wants them or not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()
        self._waiting: list[Waiter] = []

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._open

    def add(self, user_id: str) -> None:
        with self._lock:
            self._open[user_id] += 1

    def remove(self, user_id: str) -> None:
        with self._lock:
            self._open[user_id] -= 1
            if not self._open[user_id]:
                del self._open[user_id]
            waiting = list(self._waiting)
        for waiter in waiting:
            waiter.wake()

    def wait(self, user_id: str, waiter: Waiter) -> None:
        """Until the user has none, or `waiter.due`. Raises what ends `waiter`."""
        self._waiting.append(waiter)
        try:
            while user_id in self and monotonic() < waiter.wake_at:
                waiter.wait()
        finally:
            self._waiting.remove(waiter)


class BrokerUpstream:
    def __init__(
        self, broker: BrokerClient, engine: EngineClient | None, answer_max_seconds: float, open_replies: OpenReplies
    ) -> None:
        """`engine`: the one behind the broker, None where it is not known. `answer_max_seconds`: for one reply.

        `open_replies`: those of a broker that does not number its events. The user's next message waits for them.
        """
        self._broker = broker
        self._engine = engine
        self._answer_max_seconds = answer_max_seconds
        self._open_replies = open_replies

    def ask(self, identity: Identity, text: str, waiter: Waiter) -> Answer:
        deadline = self._broker.open_deadline()
        user_id = identity.user_id
        content = ChatRequest(message=text).for_upstream()
        if not self._broker.numbers_events(user_id):
            return self._ask_unnumbered(Question(identity, content, time.time()), waiter)
        receipt = self._broker.enqueue(identity, content, deadline)
        try:
            return _Queued(
                self._broker, user_id, receipt.message_id, self._broker.follow(user_id, receipt.message_id, deadline)
            )
        except ChatError:
            _stop(self._broker, user_id, receipt.message_id)
            raise

    def _ask_unnumbered(self, question: Question, waiter: Waiter) -> Answer:
        user_id = question.identity.user_id
        with contextlib.ExitStack() as undoing:
            self._open_replies.add(user_id)
            undoing.callback(self._open_replies.remove, user_id)
            reply = UnnumberedReply(self._broker, self._engine, question)
            reply.start(waiter)
            return _Unnumbered(reply, monotonic() + self._answer_max_seconds, undoing.pop_all())


class _Unnumbered(NamedTuple):
    """A reply of a broker whose one stream has to be read to its end, whatever becomes of it here."""

    reply: UnnumberedReply
    deadline: float
    at_end: contextlib.ExitStack
    """Closed once its stream has been read to its end."""

    def events(self, waiter: Waiter) -> Iterator[Event | None]:
        for data in self.reply.events(waiter):
            yield None if data is None else Event("message", data)

    def close(self) -> None:
        """In the background: its stream ends soon."""
        self.give_up()

    def give_up(self) -> None:
        threading.Thread(target=self._read_out, name="read-out", daemon=True).start()

    def _read_out(self) -> None:
        with self.at_end, contextlib.closing(waiting.new_waiter()) as waiter:
            waiter.wake_at = self.deadline
            self.reply.read_out(waiter)


class _Followed(Protocol):
    def events(self, waiter: Waiter) -> Iterator[Event | None]: ...

    def close(self) -> None: ...


class _Queued(NamedTuple):
    """A message in the broker's queue, and its answer's stream."""

    broker: BrokerClient
    user_id: str
    message_id: str
    answer: _Followed

    def events(self, waiter: Waiter) -> Iterator[Event | None]:
        return self.answer.events(waiter)

    def close(self) -> None:
        self.answer.close()

    def give_up(self) -> None:
        self.answer.close()
        _stop(self.broker, self.user_id, self.message_id)


def _stop(broker: BrokerClient, user_id: str, message_id: str) -> None:
    """In the background: nobody waits for it."""

    def stop() -> None:
        with contextlib.suppress(ChatError):
            broker.stop(user_id, message_id)

    threading.Thread(target=stop, name="stop", daemon=True).start()


class EngineUpstream:
    """An engine without a broker before it."""

    def __init__(self, engine: EngineClient, client_id: str) -> None:
        self._engine = engine
        self._client_id = client_id

    def ask(self, identity: Identity, text: str, waiter: Waiter) -> "_Streamed":
        about = {"client_id": self._client_id, "user_id": identity.user_id, "org": identity.org}
        return _Streamed(self._engine.stream(ChatRequest(message=text).for_upstream() | about, waiter))


class _Streamed(NamedTuple):
    source: _Followed

    def events(self, waiter: Waiter) -> Iterator[Event | None]:
        return self.source.events(waiter)

    def close(self) -> None:
        self.source.close()

    def give_up(self) -> None:
        self.source.close()


def _pieces(relay: Relay, answer: Answer, waiter: Waiter) -> Iterator[str | None]:
    """Raises what kept the answer from its end."""
    said = False
    for event in relay(answer.events(waiter)):
        if event is None:
            yield None
            continue
        content = events.parsed_object(event.data)
        if text := events.text_in(content):
            said = True
            yield text
        elif content["type"] == "restart" and said:
            raise Interrupted(detail="the broker began its answer anew")
        elif content["type"] == "complete" and not said:
            yield "\n\n".join(content["response"]["responses"])
    if relay.problem is not None:
        raise detached(relay.problem)
    if relay.ended == "stopped":
        raise Interrupted(detail="stopped elsewhere")
