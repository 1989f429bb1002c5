"""The engine's HTTP contract for chat, streamed and not."""

import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, Literal, Self
from uuid import UUID

from flask import Blueprint, Flask, Response, jsonify, request
from pydantic import BaseModel, Field, StrictStr, model_validator

from bff.auth.identity import Identity
from bff.engine import hooks, user_data
from bff.engine.hooks import Id, Parts
from bff.engine.turns import Completion, Contents, ConversationTurn, DirectTurn
from bff.errors import ChatError, InvalidRequest, UpstreamError
from bff.http import request_body, waiting
from bff.http.responses import EventStream, StreamOptions
from bff.http.sse import Event, encode
from bff.http.url_converters import allow_any_text
from bff.http.waiting import Waiter
from bff.upstream import events
from bff.upstream.messages import ChatMessage

KEEPALIVE: Final = encode(events.keepalive())
KEEPALIVE_SECONDS: Final = 30.0
UNHEARD: Final = "(a voice message)"
"""What is answered to instead of what only somebody with ears could understand."""

bp = Blueprint("engine", __name__)
bp.before_request(hooks.check_key)


class GivenMessage(BaseModel):
    role: Literal["user", "assistant"]
    content: StrictStr


class EngineRequest(BaseModel):
    client_id: Id
    user_id: Id
    org: Id
    message: StrictStr
    message_type: Literal["text", "audio"] = "text"
    message_id: StrictStr = ""
    """What the message is called in the queue: under it a turn of the direct chat is stored once."""
    conversation_id: UUID | None = None
    question_id: UUID | None = None
    agent_id: StrictStr = ""
    regenerate: StrictStr = ""
    messages: list[GivenMessage] | None = Field(default=None, min_length=1)
    begun: bool = False

    @model_validator(mode="after")
    def _name_both(self) -> Self:
        if (self.conversation_id is None) != (self.question_id is None):
            raise ValueError("conversation_id and question_id go together")
        return self

    @property
    def identity(self) -> Identity:
        return Identity(self.user_id, self.org)

    @property
    def conversation_turn(self) -> ConversationTurn | None:
        """None where nothing of a conversation is asked for."""
        if self.conversation_id is None or self.question_id is None:
            return None
        about = (self.conversation_id, self.question_id, self.agent_id, self.regenerate, self.begun)
        return ConversationTurn(self.identity, *about)

    @property
    def direct_turn(self) -> DirectTurn:
        spoken = self.message_type == "audio"
        question = UNHEARD if spoken and not self.message.strip() else self.message
        turn_id = self.message_id or str(uuid.uuid4())
        return DirectTurn(self.identity, turn_id, question, spoken, hooks.audio_urls(self.identity), self.begun)

    def contents(self) -> Callable[[Waiter], Contents]:
        turns = hooks.parts().turns
        if (turn := self.conversation_turn) is not None:
            return partial(turns.conversation, turn)
        if self.messages is not None:
            given = [ChatMessage(message.role, message.content) for message in self.messages]
            return partial(turns.completion, Completion(self.identity, self.agent_id, given))
        return partial(turns.direct, self.direct_turn)


class StoppedTurn(EngineRequest):
    text: StrictStr


def register(app: Flask, parts: Parts) -> None:
    app.extensions["chat_bff"] = parts
    allow_any_text(app.url_map)
    app.register_blueprint(bp)
    app.register_blueprint(user_data.bp)
    app.register_error_handler(Exception, hooks.refuse)
    app.after_request(hooks.tell)


@bp.post("/api/v1/chat/stream")
def stream() -> Response:
    contents = _asked().contents()

    def say(waiter: Waiter) -> Iterator[Event | None]:
        try:
            for content in contents(waiter):
                if content is not None:
                    yield events.event(content)
                yield None
        except ChatError as error:
            yield events.event({"type": "error", "error": str(error), "code": error.code})

    return EventStream(say, StreamOptions(KEEPALIVE, KEEPALIVE_SECONDS), environ=request.environ)


@bp.post("/api/v1/chat/stopped")
def keep_stopped() -> Response:
    """What a reply in a conversation had said when its user stopped it."""
    stopped = request_body.validated(StoppedTurn, hooks.body())
    if (turn := stopped.conversation_turn) is None:
        raise InvalidRequest("conversation_id: is required.")
    return jsonify(message_id=str(hooks.parts().turns.keep_stopped(turn, stopped.text).id))


@bp.post("/api/v1/chat")
def chat() -> Response:
    turn = _asked().direct_turn
    waiter = waiting.new_waiter(waiting.client(request.environ), allow_half_open=False)
    try:
        for content in hooks.parts().turns.direct(turn, waiter):
            if content is not None and content["type"] == "complete":
                return jsonify({"message_id": str(uuid.uuid4())} | content["response"])
    finally:
        waiter.close()
    raise UpstreamError("The engine had no answer.")


def _asked() -> EngineRequest:
    return request_body.validated(EngineRequest, hooks.body())
