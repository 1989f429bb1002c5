"""Selects what produces a message's reply: an engine, or an external broker that does not number its events."""

import time
from collections.abc import Iterator
from contextlib import closing
from time import monotonic
from typing import Final, NamedTuple, Protocol

from bff.auth.identity import Identity
from bff.broker.queue.base import Claim, Message
from bff.errors import AnswerTimeout, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from bff.http.waiting import Waiter
from bff.upstream.broker_client import BrokerClient
from bff.upstream.engine_client import EngineClient
from bff.upstream.http import EventSource
from bff.upstream.message_ids import group_mark, group_mark_of
from bff.upstream.open_replies import OpenReplies
from bff.upstream.unnumbered import Question, UnnumberedReply

EXTERNAL_BROKER_FIELDS: Final = {"message", "message_type", "audio_base64", "audio_format"}


class Reply(Protocol):
    """One reply, to be read once."""

    @property
    def open(self) -> bool:
        """Whether the upstream continues after its terminal event: then `discard_rest` has to be called."""

    def start(self, waiter: Waiter) -> None:
        """Submits the message, where that can fail before the reply begins. Raises a ChatError, and what cancels `waiter`."""

    def events(self, waiter: Waiter) -> Iterator[str | None]:
        """The engine's events as JSON, up to a terminal one; None while there is none.

        Raises an UpstreamFailure, and what cancels `waiter`.
        """

    def discard_rest(self, waiter: Waiter) -> None:
        """Reads and drops the rest, until `waiter.wake_at`. Raises what cancels `waiter`."""

    def close(self) -> None: ...


class Engines(NamedTuple):
    """The upstreams that produce replies; `Message.handler` selects one."""

    engine: EngineClient
    bundled: EngineClient
    external_broker: BrokerClient | None = None
    external_engine: EngineClient | None = None
    """The engine behind the external broker: its history has replies that were lost on the way."""
    open_replies: OpenReplies | None = None
    """The external broker's replies to the agent `broker`: see `EngineReply.open`."""

    def is_bundled(self, message: Message) -> bool:
        """Whether the bundled engine handles the message: then its error codes are those of errors.py."""
        return message.handler == "bundled" or (message.handler == "engine" and self.engine is self.bundled)

    def reply_to(self, claim: Claim) -> Reply:
        """The reply, not started yet. Raises UpstreamUnavailable if the message's handler is not configured in this process."""
        message = claim.message
        if message.handler != "external":
            is_bundled = self.is_bundled(message)
            return EngineReply(self.bundled if is_bundled else self.engine, claim, self.open_replies, is_bundled=is_bundled)
        if self.external_broker is None:
            raise UpstreamUnavailable(detail="BROKER_BASE_URL is not set in this process")
        content = {name: value for name, value in message.content.items() if name in EXTERNAL_BROKER_FIELDS}
        identity = Identity(message.user_id, message.content["org"])
        question = Question(identity, content | {"client_message_id": message.id}, time.time() - claim.waited)
        return UnnumberedReply(self.external_broker, self.external_engine, question, may_be_enqueued=claim.token > 1)


class EngineReply:
    def __init__(self, engine: EngineClient, claim: Claim, open_replies: OpenReplies | None, *, is_bundled: bool) -> None:
        self._engine = engine
        self._message = claim.message
        self._open_replies = open_replies
        self._content = claim.message.content
        if is_bundled:
            self._content = self._content | {"message_id": claim.message.id, "begun": claim.was_started}

    @property
    def open(self) -> bool:
        """An engine stops when its stream is closed; an external broker to which an agent sent the message may not.

        Only messages of the user's own group go there, so messages of other groups need not wait.
        """
        user_id = self._message.user_id
        is_in_own_group = group_mark_of(self._message.id, user_id) == group_mark(user_id)
        return self._open_replies is not None and is_in_own_group and user_id in self._open_replies

    def start(self, waiter: Waiter) -> None:
        """Does nothing: `events` sends the request."""

    def events(self, waiter: Waiter) -> Iterator[str | None]:
        with closing(self._open(waiter)) as source:
            for event in source.events(waiter):
                yield None if event is None else event.data
        raise UpstreamError(detail="the engine's stream ended without a terminal event")

    def _open(self, waiter: Waiter) -> EventSource:
        try:
            return self._engine.stream(self._content, waiter)
        except UpstreamTimeout:
            if monotonic() >= waiter.wake_at:
                raise AnswerTimeout from None
            raise

    def discard_rest(self, waiter: Waiter) -> None:
        """Waits for the agent, which reads the rest in the background."""
        if self._open_replies is not None:
            self._open_replies.wait(self._message.user_id, waiter)

    def close(self) -> None:
        """Does nothing: `events` closes its stream."""
