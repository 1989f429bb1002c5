"""The engine's HTTP contract for chat, streamed and not."""

import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, Literal, Self
from uuid import UUID

from flask import Blueprint, Flask, Response, jsonify, request
from pydantic import BaseModel, Field, StrictStr, model_validator

from bff.auth.identity import Identity
from bff.engine import hooks, user_data
from bff.engine.hooks import Id, Parts
from bff.engine.turns import Completion, Contents, ConversationTurn, DirectTurn, ResponseTurn
from bff.errors import ChatError, InvalidRequest, UpstreamError
from bff.http import request_body, waiting
from bff.http.responses import EventStream, StreamOptions, without_empty_type
from bff.http.sse import Event, encode
from bff.http.url_converters import allow_any_text
from bff.http.waiting import Waiter
from bff.upstream import events
from bff.upstream.messages import ChatMessage, Role

KEEPALIVE: Final = encode(events.keepalive())
AUDIO_PLACEHOLDER: Final = "(a voice message)"
"""The question of an audio message: the bundled engine has no speech recognition."""

bp = Blueprint("engine", __name__)
bp.before_request(hooks.check_key)


class CompletionMessage(BaseModel):
    role: Role
    content: StrictStr
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: StrictStr | None = None
    name: StrictStr | None = None

    @property
    def chat_message(self) -> ChatMessage:
        return ChatMessage(self.role, self.content, self.model_dump(exclude={"role", "content"}, exclude_none=True))


class EngineRequest(BaseModel):
    client_id: Id
    user_id: Id
    org: Id
    message: StrictStr
    message_type: Literal["text", "audio"] = "text"
    message_id: StrictStr = ""
    """The message's id in the queue: a turn of the direct chat is stored once per id."""
    conversation_id: UUID | None = None
    question_id: UUID | None = None
    agent_id: StrictStr = ""
    regenerate: StrictStr = ""
    messages: list[CompletionMessage] | None = Field(default=None, min_length=1)
    options: dict[str, Any] = {}
    """Sampling parameters and the like, in OpenAI's format, for the agent that replies to `messages`."""
    response_id: UUID | None = None
    """A stored response of /v1/responses."""
    begun: bool = False

    @model_validator(mode="after")
    def _check_ids(self) -> Self:
        if (self.conversation_id is None) != (self.question_id is None):
            raise ValueError("conversation_id and question_id go together")
        return self

    @property
    def identity(self) -> Identity:
        return Identity(self.user_id, self.org)

    @property
    def conversation_turn(self) -> ConversationTurn | None:
        """None if the request names no conversation."""
        if self.conversation_id is None or self.question_id is None:
            return None
        ids = self.conversation_id, self.question_id
        return ConversationTurn(self.identity, *ids, self.agent_id, self.regenerate, self.begun)

    @property
    def response_turn(self) -> ResponseTurn | None:
        return ResponseTurn(self.identity, self.response_id, self.begun) if self.response_id is not None else None

    @property
    def direct_turn(self) -> DirectTurn:
        spoken = self.message_type == "audio"
        question = AUDIO_PLACEHOLDER if spoken and not self.message.strip() else self.message
        turn_id = self.message_id or str(uuid.uuid4())
        return DirectTurn(self.identity, turn_id, question, spoken, hooks.audio_url_prefix(self.identity), self.begun)

    def contents(self) -> Callable[[Waiter], Contents]:
        turns = hooks.parts().turns
        if (turn := self.conversation_turn) is not None:
            return partial(turns.conversation, turn)
        if (response_turn := self.response_turn) is not None:
            return partial(turns.response, response_turn)
        if self.messages is not None:
            messages = [message.chat_message for message in self.messages]
            return partial(turns.completion, Completion(self.identity, self.agent_id, messages, self.options))
        return partial(turns.direct, self.direct_turn)


class StoppedTurn(EngineRequest):
    text: StrictStr


class EndedResponse(EngineRequest):
    status: Literal["failed", "cancelled"]
    error_code: StrictStr = ""


def register(app: Flask, parts: Parts) -> None:
    app.extensions["chat_bff"] = parts
    allow_any_text(app.url_map)
    app.register_blueprint(bp)
    app.register_blueprint(user_data.bp)
    app.register_error_handler(Exception, hooks.error_response)
    app.after_request(hooks.log_response)
    app.after_request(without_empty_type)


@bp.post("/api/v1/chat/stream")
def stream() -> Response:
    contents = _parse_request().contents()

    def encode_events(waiter: Waiter) -> Iterator[Event | None]:
        try:
            for content in contents(waiter):
                if content is not None:
                    yield events.event(content)
                yield None
        except ChatError as error:
            hooks.log_failure(error)
            yield events.event({"type": "error", "error": str(error), "code": error.code})

    return EventStream(encode_events, StreamOptions(KEEPALIVE, hooks.parts().keepalive_seconds), environ=request.environ)


@bp.post("/api/v1/chat/stopped")
def keep_stopped() -> Response:
    """Stores the output of a conversation's reply that its user stopped."""
    stopped = request_body.parse(StoppedTurn, hooks.body())
    if (turn := stopped.conversation_turn) is None:
        raise InvalidRequest("conversation_id: is required.")
    return jsonify(message_id=str(hooks.parts().turns.keep_stopped(turn, stopped.text).id))


@bp.post("/api/v1/chat/ended")
def end_response() -> Response:
    """Records how a stored response without output ended."""
    ended = request_body.parse(EndedResponse, hooks.body())
    if (turn := ended.response_turn) is None:
        raise InvalidRequest("response_id: is required.")
    hooks.parts().turns.end_response(turn, ended.status, ended.error_code)
    return jsonify(status=ended.status)


@bp.post("/api/v1/chat")
def chat() -> Response:
    turn = _parse_request().direct_turn
    waiter = waiting.new_waiter(waiting.client(request.environ), allow_half_open=False)
    try:
        for content in hooks.parts().turns.direct(turn, waiter):
            if content is not None and content["type"] == "complete":
                return jsonify({"message_id": str(uuid.uuid4())} | content["response"])
    finally:
        waiter.close()
    raise UpstreamError("The engine had no answer.")


def _parse_request() -> EngineRequest:
    return request_body.parse(EngineRequest, hooks.body())
