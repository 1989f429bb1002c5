"""An agent that sends the user's last message to the configured broker or engine, and streams the reply.

Broker and engine store their users' history themselves, so only the last message is sent. The bundled broker is never used: a
run that waits for another run of the same worker would hold the slot that the other one needs.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, Protocol

from bff.auth.identity import Identity
from bff.engine.agents.base import EndedPieces, Ending, last_user_message
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
from bff.upstream.open_replies import OpenReplies
from bff.upstream.output import usage_of
from bff.upstream.relay import Relay
from bff.upstream.unnumbered import Question, UnnumberedReply


class EventReader(Protocol):
    def events(self, waiter: Waiter) -> Iterator[Event | None]: ...

    def close(self) -> None: ...


class UpstreamReply(EventReader, Protocol):
    @property
    def own(self) -> bool:
        """Whether its error codes are those of errors.py: it comes from a broker with our contract."""

    def close(self) -> None:
        """Called after the terminal event."""

    def cancel(self) -> None:
        """Called instead of `close` before the terminal event: stops the upstream's work. Does not block."""


class Upstream(Protocol):
    def send(self, identity: Identity, text: str, waiter: Waiter) -> UpstreamReply:
        """Raises an UpstreamFailure, and what cancels `waiter`."""


class Broker:
    id = BROKER
    name = "Broker"
    description = "Answers through the message queue and the engine behind it."
    repeatable = False

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def stream(self, history: Sequence[ChatMessage], identity: Identity, waiter: Waiter) -> EndedPieces:
        text = last_user_message(history)
        reply = yield from in_background(
            lambda call_waiter: self._upstream.send(identity, text, call_waiter), waiter, lambda late: late.cancel()
        )
        relay = Relay("", own=reply.own)
        try:
            return (yield from _pieces(relay, reply, waiter))
        finally:
            if relay.ended in events.TERMINAL:
                reply.close()
            else:
                reply.cancel()  # Also after an error here: the upstream may still be running.


class BrokerUpstream:
    def __init__(
        self, broker: BrokerClient, engine: EngineClient | None, answer_max_seconds: float, open_replies: OpenReplies
    ) -> None:
        """`engine`: the one behind the broker, if known.

        `open_replies`: those of a broker that does not number its events. The user's next message waits for them.
        """
        self._broker = broker
        self._engine = engine
        self._answer_max_seconds = answer_max_seconds
        self._open_replies = open_replies

    def send(self, identity: Identity, text: str, waiter: Waiter) -> UpstreamReply:
        broker, user_id = self._broker, identity.user_id
        deadline = broker.open_deadline()
        content = ChatRequest(message=text).for_upstream()
        if not broker.numbers_events(user_id):
            return self._send_unnumbered(Question(identity, content, time.time()), waiter)
        message_id = broker.enqueue(identity, content, deadline).message_id
        stop = partial(_stop_in_background, broker, user_id, message_id)
        try:
            return _StreamedReply(broker.follow(user_id, message_id, deadline), stop, own=True)
        except ChatError:
            stop()
            raise

    def _send_unnumbered(self, question: Question, waiter: Waiter) -> UpstreamReply:
        user_id = question.identity.user_id
        with contextlib.ExitStack() as undo:
            self._open_replies.add(user_id)
            undo.callback(self._open_replies.remove, user_id)
            reply = UnnumberedReply(self._broker, self._engine, question)
            reply.start(waiter)
            return _UnnumberedReply(reply, monotonic() + self._answer_max_seconds, undo.pop_all())


class _UnnumberedReply(NamedTuple):
    """A reply of a broker that allows one stream per message: it is read to its end even if nobody needs it any more."""

    reply: UnnumberedReply
    deadline: float
    at_end: contextlib.ExitStack
    """Closed when the stream has been read to its end."""
    own: bool = False

    def events(self, waiter: Waiter) -> Iterator[Event | None]:
        for data in self.reply.events(waiter):
            yield None if data is None else Event("message", data)

    def close(self) -> None:
        self.cancel()

    def cancel(self) -> None:
        threading.Thread(target=self._read_out, name="read-out", daemon=True).start()

    def _read_out(self) -> None:
        with self.at_end, contextlib.closing(waiting.new_waiter()) as waiter:
            waiter.wake_at = self.deadline
            self.reply.discard_rest(waiter)


class _StreamedReply(NamedTuple):
    """A reply that can be stopped without blocking: its stream is closed, and its producer is asked to stop."""

    stream: EventReader
    stop: Callable[[], None] = lambda: None
    """An engine needs none: it stops when its stream is closed."""
    own: bool = False

    def events(self, waiter: Waiter) -> Iterator[Event | None]:
        return self.stream.events(waiter)

    def close(self) -> None:
        self.stream.close()

    def cancel(self) -> None:
        self.stream.close()
        self.stop()


def _stop_in_background(broker: BrokerClient, user_id: str, message_id: str) -> None:
    def stop() -> None:
        with contextlib.suppress(ChatError):
            broker.stop(user_id, message_id)

    threading.Thread(target=stop, name="stop", daemon=True).start()


class EngineUpstream:
    """An engine without a broker."""

    def __init__(self, engine: EngineClient, client_id: str) -> None:
        self._engine = engine
        self._client_id = client_id

    def send(self, identity: Identity, text: str, waiter: Waiter) -> UpstreamReply:
        sender = {"client_id": self._client_id, "user_id": identity.user_id, "org": identity.org}
        return _StreamedReply(self._engine.stream(ChatRequest(message=text).for_upstream() | sender, waiter))


def _pieces(relay: Relay, reply: UpstreamReply, waiter: Waiter) -> EndedPieces:
    """Raises a ChatError if the reply does not end with `complete`."""
    started, response = False, dict[str, Any]()
    for event in relay(reply.events(waiter)):
        content = {} if event is None else events.parse_object(event.data)
        kind = content.get("type")
        if text := events.text_in(content):
            started = True
            yield text
        elif kind == "complete":
            response = content["response"]
        elif kind == "restart" and started:
            raise Interrupted(detail="the broker restarted its reply after the first output")
        elif kind in {None, "reasoning"}:
            yield content or None
    if relay.error is not None:
        raise detached(relay.error)
    if relay.ended == "stopped":
        raise Interrupted(detail="the broker stopped the reply")
    if not started:
        yield "\n\n".join(response["responses"])
    return Ending(response.get("truncated") is True, usage_of(response))
