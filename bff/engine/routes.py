"""The engine's HTTP contract, as far as the bundled one goes: chat, streamed and not."""

import hmac
import json
import socket
import uuid
from collections.abc import Iterator
from typing import Annotated, Final, Literal, NamedTuple

from flask import Blueprint, Flask, Response, current_app, jsonify, request
from pydantic import BaseModel, StrictStr, StringConstraints
from werkzeug.exceptions import HTTPException

from bff import bodies
from bff.agents import Agent
from bff.agents import Said as Turn
from bff.engine.commands import Said, command, progress
from bff.errors import ChatError, InternalError, Unauthorized, UpstreamError, by_status
from bff.ops import hub
from bff.ops.hub import Watch
from bff.sse import Event, encode
from bff.streaming import EventStream, How

KEEPALIVE: Final = encode(Event("", '{"type":"keepalive"}'))
KEEPALIVE_SECONDS: Final = 30.0

Id = Annotated[StrictStr, StringConstraints(min_length=1, max_length=1024)]
bp = Blueprint("engine", __name__)


class Parts(NamedTuple):
    agent: Agent
    key: str
    max_body_bytes: int


class EngineRequest(BaseModel):
    client_id: Id
    user_id: Id
    org: Id
    message: StrictStr
    message_type: Literal["text", "audio"] = "text"


def register(app: Flask, parts: Parts) -> None:
    app.extensions["engine"] = parts
    app.register_blueprint(bp)
    app.register_error_handler(Exception, _refuse)


def _parts() -> Parts:
    parts: Parts = current_app.extensions["engine"]
    return parts


@bp.before_request
def _check_key() -> None:
    shown = request.headers.get("Authorization", "").encode("utf-8", "replace")
    if not hmac.compare_digest(shown, f"Bearer {_parts().key}".encode()):
        raise Unauthorized("The bearer key is missing or wrong.")


@bp.post("/api/v1/chat/stream")
def stream() -> Response:
    agent, asked, caller = _parts().agent, _asked(), hub.browser(request.environ)

    def say(watch: Watch) -> Iterator[Event | None]:
        for content in _answer(agent, asked, watch, caller):
            yield None if content is None else Event("", json.dumps(content, separators=(",", ":")))
            yield None

    return EventStream(say, How(KEEPALIVE, KEEPALIVE_SECONDS), environ=request.environ)


@bp.post("/api/v1/chat")
def chat() -> Response:
    watch = hub.watch()
    try:
        for content in _answer(_parts().agent, _asked(), watch, None):
            if content is not None and content["type"] == "complete":
                return jsonify({"message_id": str(uuid.uuid4())} | content["response"])
    finally:
        watch.close()
    raise UpstreamError("The engine had no answer.")


def _answer(agent: Agent, asked: EngineRequest, watch: Watch, caller: socket.socket | None) -> Said:
    if do := command(asked.message):
        return do(watch, caller)
    return progress(agent.stream([Turn("user", asked.message)], watch))


def _asked() -> EngineRequest:
    return bodies.validated(EngineRequest, bodies.read_json(request.environ, _parts().max_body_bytes))


def _refuse(error: Exception) -> Response:
    if isinstance(error, HTTPException):
        error = by_status(error.code)
    if not isinstance(error, ChatError):
        current_app.logger.error("the engine stumbled", exc_info=error)
        error = InternalError()
    response = jsonify(error=str(error), code=error.code)
    response.status_code = error.status
    return response
