"""/v1: the same chat, for clients of OpenAI's. Who asks is known as everywhere; where that is by a bearer, it is their key."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from flask import Blueprint, Response, jsonify, request

from bff.api import hooks, reply_stream, services
from bff.api.adapters import openai
from bff.api.adapters.base import ParsedRequest, Sent
from bff.api.adapters.openai import OPENAI, OpenAiEncoder
from bff.errors import ClientDisconnected, NotFound, TooLarge, detached
from bff.http import waiting
from bff.http.sse import Event
from bff.http.streams import Slot
from bff.upstream import messages
from bff.upstream.agents import BROKER
from bff.upstream.messages import ChatRequest
from bff.upstream.reconnect import Reply

bp = Blueprint("openai", __name__, url_prefix="/v1")

DEFAULT: Final = "default"
"""The model that answers through the broker; the agents have their own names."""
MAX_CHARACTERS: Final = 1_000_000
"""Of all messages that an agent is given."""


@bp.post("/chat/completions")
def complete() -> Response:
    identity, parts = hooks.identity(), services.parts()
    parsed = OPENAI.parsed(hooks.body())
    model = parsed.about["model"]
    _check_model(model)
    message = messages.parse(parsed.body, request.headers.get("Idempotency-Key"))
    parts.rate.acquire(identity.user_id)
    # Who leaves here cannot come back, and has no other way to say stop.
    content = _content(message, parsed) | {"on_disconnect": "cancel"}
    with parts.streams.acquire(identity.user_id) as slot:
        if model == DEFAULT:
            broker, deadline, handler = reply_stream.destination(identity.user_id)
        else:
            broker, deadline, handler = parts.own_broker, parts.own_broker.open_deadline(), {}
        message_id = broker.enqueue(identity, content | handler, deadline).message_id
        answer = broker.follow(identity.user_id, message_id, deadline)
        leave = reply_stream.leaver(broker, identity.user_id, message_id) if broker is parts.own_broker else None
        about = {"model": model, "created": int(time.time())}
        if not parsed.about["stream"]:
            return _whole(answer, message_id, slot, about, leave)
        encoder = OpenAiEncoder(message_id, about, Sent.NOTHING)
        return reply_stream.stream(answer, message_id, slot, OPENAI, encoder, kind="v1", broker=broker, leave=leave)


def _content(message: ChatRequest, parsed: ParsedRequest) -> dict[str, Any]:
    """For direct chat the last message, as its engine remembers the others; for an agent all of them, in a group of its own."""
    content = reply_stream.for_broker(message, services.parts().settings)
    if parsed.about["model"] == DEFAULT:
        return content
    given = [{"role": role, "content": text} for role, text in parsed.about["history"]]
    if sum(len(message["content"]) for message in given) > MAX_CHARACTERS:
        raise TooLarge("messages: too much for an agent.")
    own_group = {"group": f"v1:{uuid.uuid4()}", "on_busy": "enqueue"}
    return content | own_group | {"handler": "bundled", "agent_id": parsed.about["model"], "messages": given}


@bp.get("/models")
def models() -> Response:
    hooks.identity()
    return jsonify(openai.models(_models()))


@bp.get("/models/<path:name>")
def model(name: str) -> Response:
    hooks.identity()
    _check_model(name)
    return jsonify(openai.model(name))


@bp.errorhandler(Exception)
def _refuse(error: Exception) -> Response:
    problem = hooks.to_chat_error(error)
    response = jsonify(openai.error(problem))
    response.status_code = problem.status
    if problem.retry_after is not None:
        response.headers["Retry-After"] = str(problem.retry_after)
    return response


def _models() -> tuple[str, ...]:
    return DEFAULT, *(name for name in services.parts().agents if name != BROKER)


def _check_model(name: str) -> None:
    if name not in _models():
        raise NotFound("There is no such model here.")


def _whole(answer: Reply, message_id: str, slot: Slot, about: Mapping[str, Any], leave: Callable[[], None] | None) -> Response:
    """Waits for the answer's end. Raises what broke it, with a status of its own."""
    hooks.hold(slot)
    told = reply_stream.tell(answer, message_id, kind="v1", own=leave is not None, leave=leave)
    waiter = waiting.new_waiter(waiting.client_socket(request.environ), allow_half_open=False)
    try:
        slot.attach(waiter)
        last = _last(told.say(waiter))
    except ClientDisconnected:
        return Response(status=ClientDisconnected.status)
    finally:
        waiter.close()
        hooks.add_log_fields(told.end())
    if told.problem is not None:
        raise detached(told.problem)
    response = jsonify(openai.completion(message_id, about, last))
    response.headers["X-Message-ID"] = message_id
    return response


def _last(said: Iterator[Event | None]) -> str:
    """The data of the last event. Raises ClientDisconnected."""
    last = ""
    for event in said:
        if event is not None:
            last = event.data
    return last
