"""Who answers a message: an engine, or an external broker that does not number its events."""

import time
from collections.abc import Iterator
from contextlib import closing
from time import monotonic
from typing import Final, NamedTuple, Protocol

from bff.auth.identity import Identity
from bff.broker.queue.base import Claim, Message
from bff.engine.agents.broker import OpenReplies
from bff.errors import AnswerTimeout, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from bff.http.waiting import Waiter
from bff.upstream.broker_client import BrokerClient
from bff.upstream.engine_client import EngineClient
from bff.upstream.http import EventSource
from bff.upstream.message_ids import group_mark, group_mark_of
from bff.upstream.unnumbered import Question, UnnumberedReply

FOR_EXTERNAL_BROKER: Final = {"message", "message_type", "audio_base64", "audio_format"}


class Reply(Protocol):
    """One reply, read once."""

    @property
    def open(self) -> bool:
        """Whether whoever answers goes on with it after it was left: then `read_out` reads it to its end."""

    def start(self, waiter: Waiter) -> None:
        """Asks for it, where that can fail before anything is told. Raises a ChatError, and what ends `waiter`."""

    def events(self, waiter: Waiter) -> Iterator[str | None]:
        """The engine's events as JSON, None where they pause, up to a terminal one. Raises an UpstreamFailure, and what
        ends `waiter`.
        """

    def read_out(self, waiter: Waiter) -> None:
        """Until `waiter.due`. Raises what ends `waiter`."""

    def close(self) -> None: ...


class Engines(NamedTuple):
    """Who may answer, by `Message.handler`."""

    engine: EngineClient
    bundled: EngineClient
    external_broker: BrokerClient | None = None
    external_engine: EngineClient | None = None
    """The external broker's, whose history is asked for what was lost on the way."""
    open_replies: OpenReplies | None = None
    """The agents', of the external broker: see `EngineReply.open`."""

    def are_ours(self, message: Message) -> bool:
        """Whether the bundled engine answers it, the codes of whose errors are ours."""
        return message.handler == "bundled" or (message.handler == "engine" and self.engine is self.bundled)

    def reply_to(self, claim: Claim) -> Reply:
        """Not begun yet. Raises UpstreamUnavailable where this process does not know who answers."""
        message = claim.message
        if message.handler != "external":
            is_ours = self.are_ours(message)
            return EngineReply(self.bundled if is_ours else self.engine, claim, self.open_replies, is_ours=is_ours)
        if self.external_broker is None:
            raise UpstreamUnavailable(detail="BROKER_BASE_URL is not set in this process")
        content = {name: value for name, value in message.content.items() if name in FOR_EXTERNAL_BROKER}
        identity = Identity(message.user_id, message.content["org"])
        question = Question(identity, content | {"client_message_id": message.id}, time.time() - claim.waited)
        return UnnumberedReply(self.external_broker, self.external_engine, question, left_before=claim.token > 1)


class EngineReply:
    """An engine's events as they come."""

    def __init__(self, engine: EngineClient, claim: Claim, open_replies: OpenReplies | None, *, is_ours: bool) -> None:
        self._engine = engine
        self._message = claim.message
        self._open_replies = open_replies
        self._content = claim.message.content
        if is_ours:
            self._content = self._content | {"message_id": claim.message.id, "begun": claim.begun}

    @property
    def open(self) -> bool:
        """An engine stops when its stream is closed; but not an external broker to which an agent has passed the message on.

        All that goes there waits in the user's own group, so that no other message has to wait for it.
        """
        user_id = self._message.user_id
        is_in_own_group = group_mark_of(self._message.id, user_id) == group_mark(user_id)
        return self._open_replies is not None and is_in_own_group and user_id in self._open_replies

    def start(self, waiter: Waiter) -> None:
        """Nothing: the engine is asked when its events are."""

    def events(self, waiter: Waiter) -> Iterator[str | None]:
        with closing(self._opened(waiter)) as source:
            for event in source.events(waiter):
                yield None if event is None else event.data
        raise UpstreamError(detail="the engine ended without an end")

    def _opened(self, waiter: Waiter) -> EventSource:
        try:
            return self._engine.stream(self._content, waiter)
        except UpstreamTimeout:
            if monotonic() >= waiter.wake_at:
                raise AnswerTimeout from None
            raise

    def read_out(self, waiter: Waiter) -> None:
        """The agent does, in the background."""
        if self._open_replies is not None:
            self._open_replies.wait(self._message.user_id, waiter)

    def close(self) -> None:
        """`events` has closed what it opened."""
