"""The engine's HTTP contract for chat, streamed and not."""

import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any, Final, Literal, Self
from uuid import UUID

from flask import Blueprint, Flask, Response, jsonify, request
from pydantic import BaseModel, StrictStr, model_validator

from bff import bodies, events
from bff.agents import Said
from bff.engine import door, kept
from bff.engine.commands import Contents, Do, command, progress
from bff.engine.door import Id, Parts
from bff.engine.memory import Memory, Owner, new_turn
from bff.engine.turns import TurnRequest
from bff.errors import ChatError, InvalidRequest, UpstreamError
from bff.identity import Identity
from bff.ops import hub
from bff.ops.hub import Watch
from bff.sse import Event, encode
from bff.streaming import EventStream, How
from bff.url_converters import allow_any_text

KEEPALIVE: Final = encode(events.keepalive())
KEEPALIVE_SECONDS: Final = 30.0
UNHEARD: Final = "(a voice message)"
"""What is answered to instead of what only somebody with ears could understand."""

bp = Blueprint("engine", __name__)
bp.before_request(door.check_key)


class EngineRequest(BaseModel):
    client_id: Id
    user_id: Id
    org: Id
    message: StrictStr
    message_type: Literal["text", "audio"] = "text"
    conversation_id: UUID | None = None
    question_id: UUID | None = None
    agent_id: StrictStr = ""
    regenerate: StrictStr = ""
    begun: bool = False

    @model_validator(mode="after")
    def _name_both(self) -> Self:
        if (self.conversation_id is None) != (self.question_id is None):
            raise ValueError("conversation_id and question_id go together")
        return self

    def turn(self) -> TurnRequest | None:
        """None where nothing of a conversation is asked for."""
        if self.conversation_id is None or self.question_id is None:
            return None
        identity = Identity(self.user_id, self.org)
        return TurnRequest(identity, self.conversation_id, self.question_id, self.agent_id, self.regenerate, self.begun)


class StoppedTurn(EngineRequest):
    text: StrictStr


def register(app: Flask, parts: Parts) -> None:
    app.extensions["engine"] = parts
    allow_any_text(app.url_map)
    app.register_blueprint(bp)
    app.register_blueprint(kept.bp)
    app.register_error_handler(Exception, door.refuse)
    app.after_request(door.tell)


@bp.post("/api/v1/chat/stream")
def stream() -> Response:
    asked = _asked()
    turn = asked.turn()
    contents: Do = _Answering(asked, door.parts()).say if turn is None else partial(door.parts().turns.say, turn)

    def say(watch: Watch) -> Iterator[Event | None]:
        try:
            for content in contents(watch):
                if content is not None:
                    yield events.event(content)
                yield None
        except ChatError as error:
            yield events.event({"type": "error", "error": str(error), "code": error.code})

    return EventStream(say, How(KEEPALIVE, KEEPALIVE_SECONDS), environ=request.environ)


@bp.post("/api/v1/chat/stopped")
def keep_stopped() -> Response:
    """What a reply in a conversation had said when its user stopped it."""
    stopped = bodies.validated(StoppedTurn, door.body())
    if (turn := stopped.turn()) is None:
        raise InvalidRequest("conversation_id: is required.")
    return jsonify(message_id=str(door.parts().turns.keep_stopped(turn, stopped.text).id))


@bp.post("/api/v1/chat")
def chat() -> Response:
    watch = hub.watch(hub.place(request.environ), half_open=False)
    try:
        for content in _Answering(_asked(), door.parts()).say(watch):
            if content is not None and content["type"] == "complete":
                return jsonify({"message_id": str(uuid.uuid4())} | content["response"])
    finally:
        watch.close()
    raise UpstreamError("The engine had no answer.")


class _Answering:
    """One message being answered; the turn is kept before its end is told, so that whoever was told it finds it."""

    def __init__(self, asked: EngineRequest, parts: Parts) -> None:
        self._parts = parts
        self._owner = Owner(asked.org, asked.user_id)
        self._spoken = asked.message_type == "audio"
        self._message = UNHEARD if self._spoken and not asked.message.strip() else asked.message
        self._audio_urls = door.audio_urls(self._owner)

    def say(self, watch: Watch) -> Contents:
        for content in self._said(watch):
            if content is not None and content["type"] == "complete":
                self._keep(content["response"])
            yield content

    def _said(self, watch: Watch) -> Contents:
        if do := command(self._message):
            return do(watch)
        identity = Identity(self._owner.user_id, self._owner.org)
        return progress(self._parts.agent.stream([Said("user", self._message)], identity, watch))

    def _keep(self, response: dict[str, Any]) -> None:
        memory: Memory = self._parts.memory
        turn = new_turn(self._message, "\n\n".join(response["responses"]), spoken=self._spoken)
        memory.keep(self._owner, turn)
        response["response_language"] = memory.language(self._owner) or response["response_language"]
        if self._spoken:
            response["voice_audio_url"] = f"{self._audio_urls}{turn.id}.wav"


def _asked() -> EngineRequest:
    return bodies.validated(EngineRequest, door.body())
