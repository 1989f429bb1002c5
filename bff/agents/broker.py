"""Leaves the message with the broker, as `POST /api/chat/stream` does, and says its answer's pieces on.

The engine behind the broker knows its users' history itself: it is given the last message only.
"""

import contextlib
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

from bff import events
from bff.agents import Said, last_question
from bff.broker_client import BrokerClient
from bff.errors import ChatError, Interrupted, detached
from bff.following import Answer
from bff.identity import Identity
from bff.messages import ChatRequest
from bff.ops.beside import beside
from bff.ops.hub import Watch
from bff.relay import Relay


class Broker:
    id = "broker"
    name = "Broker"
    description = "Answers through the message queue and the engine behind it."

    def __init__(self, broker: BrokerClient) -> None:
        self._broker = broker

    def stream(self, history: Sequence[Said], identity: Identity, watch: Watch) -> Generator[str | None]:
        message = ChatRequest(message=last_question(history))
        left = yield from beside(lambda _: self._leave(identity, message), watch, self._give_up)
        relay = Relay("")
        try:
            yield from _pieces(relay, left.answer, watch)
        finally:
            if relay.ended in events.TERMINAL:
                left.answer.close()
            else:
                self._give_up(left)  # Also where an error ended it here: the engine may still be at it.

    def _leave(self, identity: Identity, message: ChatRequest) -> "_Left":
        until = self._broker.opening()
        receipt = self._broker.enqueue(identity, message, until, {})
        try:
            return _Left(identity.user_id, receipt.message_id, self._broker.follow(identity.user_id, receipt.message_id, until))
        except ChatError:
            self._stop(identity.user_id, receipt.message_id)
            raise

    def _give_up(self, left: "_Left") -> None:
        left.answer.close()
        self._stop(left.user_id, left.message_id)

    def _stop(self, user_id: str, message_id: str) -> None:
        """In the background: nobody is left to wait for it."""

        def stop() -> None:
            with contextlib.suppress(ChatError):
                self._broker.stop(user_id, message_id)

        threading.Thread(target=stop, name="stop", daemon=True).start()


class _Left(NamedTuple):
    """A message in the queue, and its answer's stream."""

    user_id: str
    message_id: str
    answer: Answer


def _pieces(relay: Relay, answer: Answer, watch: Watch) -> Iterator[str | None]:
    """Raises what kept the answer from its end."""
    said = False
    for event in relay(answer.events(watch)):
        if event is None:
            yield None
            continue
        content = events.parsed_object(event.data)
        if text := events.text_in(content):
            said = True
            yield text
        elif content["type"] == "complete" and not said:
            yield "\n\n".join(content["response"]["responses"])
    if relay.problem is not None:
        raise detached(relay.problem)
    if relay.ended == "stopped":
        raise Interrupted(detail="stopped elsewhere")
