"""/v1: chat completions and models for OpenAI's clients. With AUTH_MODE=jwt their API key is the user's token."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from flask import Blueprint, Response, jsonify, request

from bff import errors
from bff.api import hooks, reply_stream, services
from bff.api.adapters import openai
from bff.api.adapters.base import ParsedRequest, Sent
from bff.api.adapters.openai import OPENAI, CompletionRequest, OpenAiEncoder
from bff.api.destination import Destination, choose_destination, enqueue_content
from bff.api.openapi import (
    AUTH_ERRORS,
    BODY_ERRORS,
    LIMIT_ERRORS,
    UPSTREAM_ERRORS,
    ResponseSpec,
    describe,
)
from bff.api.openapi.parameters import IDEMPOTENCY_KEY
from bff.api.openapi.schemas import Chunk, Completion, ModelName, ModelNames, OpenAIProblem
from bff.errors import ClientDisconnected, NotFound, TooLarge, detached
from bff.http import waiting
from bff.http.sse import Event
from bff.http.streams import Slot
from bff.upstream import messages
from bff.upstream.agents import BROKER
from bff.upstream.messages import ChatRequest
from bff.upstream.reconnect import Reply

bp = Blueprint("openai", __name__, url_prefix="/v1")
hooks.add_hooks(bp)

DEFAULT_MODEL: Final = "default"
"""Direct chat, through the broker. The other models are the agents."""
MAX_CHARACTERS: Final = 1_000_000
"""In all messages for an agent together."""


@bp.post("/chat/completions")
@describe(
    "Send a message in OpenAI's format; with `stream` the reply is streamed.",
    {
        200: ResponseSpec(
            "The reply, or its chunks.",
            Completion,
            headers={"X-Message-ID": "The message's id."},
            events={"message": (Chunk, OpenAIProblem)},
        )
    },
    (
        *AUTH_ERRORS,
        *BODY_ERRORS,
        *LIMIT_ERRORS,
        *UPSTREAM_ERRORS,
        errors.NotFound,
        errors.Busy,
        errors.Expired,
        errors.IdempotencyConflict,
    ),
    problem=OpenAIProblem,
    bodies=(CompletionRequest,),
    parameters=(IDEMPOTENCY_KEY,),
)
def complete() -> Response:
    identity, parts = hooks.identity(), services.parts()
    parsed = OPENAI.parse_request(hooks.body())
    model = parsed.context["model"]
    _check_model(model)
    message = messages.parse(parsed.body, request.headers.get("Idempotency-Key"))
    parts.rate.acquire(identity.user_id)
    # These clients can neither resume a reply nor stop it, except by disconnecting.
    content = _content(message, parsed) | {"on_disconnect": "cancel"}
    with parts.streams.acquire(identity.user_id) as slot:
        broker, deadline, more = _destination(model, identity.user_id)
        message_id = broker.enqueue(identity, content | more, deadline).message_id
        reply = broker.follow(identity.user_id, message_id, deadline)
        is_own = broker is parts.own_broker
        callback = reply_stream.disconnect_callback(broker, identity.user_id, message_id) if is_own else None
        completion = {"model": model, "created": int(time.time())}
        if not parsed.context["stream"]:
            return _completion_response(reply, message_id, slot, completion, callback)
        encoder = OpenAiEncoder(message_id, completion, Sent.NOTHING)
        return reply_stream.stream_response(
            reply, message_id, slot, OPENAI, encoder, kind="v1", broker=broker, on_reader_gone=callback
        )


def _destination(model: str, user_id: str) -> Destination:
    if model == DEFAULT_MODEL:
        return choose_destination(user_id)
    broker = services.parts().own_broker
    return Destination(broker, broker.open_deadline(), {})


def _content(message: ChatRequest, parsed: ParsedRequest) -> dict[str, Any]:
    """For direct chat the last message only, as its engine stores the history. An agent gets all messages, in a new group."""
    content = enqueue_content(message, services.parts().settings)
    if parsed.context["model"] == DEFAULT_MODEL:
        return content
    history = [{"role": role, "content": text} for role, text in parsed.context["history"]]
    if sum(len(message["content"]) for message in history) > MAX_CHARACTERS:
        raise TooLarge("messages: too much for an agent.")
    own_group = {"group": f"v1:{uuid.uuid4()}", "on_busy": "enqueue"}
    return content | own_group | {"handler": "bundled", "agent_id": parsed.context["model"], "messages": history}


@bp.get("/models")
@describe("List the models.", {200: ResponseSpec("All models.", ModelNames)}, AUTH_ERRORS, problem=OpenAIProblem)
def list_models() -> Response:
    hooks.identity()
    return jsonify(openai.models(_models()))


@bp.get("/models/<path:name>")
@describe(
    "Get a model.",
    {200: ResponseSpec("The model.", ModelName)},
    (*AUTH_ERRORS, errors.NotFound),
    problem=OpenAIProblem,
)
def show_model(name: str) -> Response:
    hooks.identity()
    _check_model(name)
    return jsonify(openai.model(name))


@bp.errorhandler(Exception)
def _handle_error(error: Exception) -> Response:
    """In the shape of OpenAI's errors."""
    chat_error = hooks.to_chat_error(error)
    response = jsonify(openai.error(chat_error))
    response.status_code = chat_error.status
    if chat_error.retry_after is not None:
        response.headers["Retry-After"] = str(chat_error.retry_after)
    return response


def _models() -> tuple[str, ...]:
    return DEFAULT_MODEL, *(name for name in services.parts().agents if name != BROKER)


def _check_model(name: str) -> None:
    """Raises NotFound."""
    if name not in _models():
        raise NotFound("There is no such model here.")


def _completion_response(
    reply: Reply,
    message_id: str,
    slot: Slot,
    completion: Mapping[str, Any],
    on_reader_gone: Callable[[], None] | None,
) -> Response:
    """Waits for the end of the reply. `completion`: see OpenAiEncoder. Raises the error that the reply ended with."""
    hooks.release_with_response(slot)
    stream = reply_stream.new_reply_stream(reply, message_id, kind="v1", own=True, on_reader_gone=on_reader_gone)
    waiter = waiting.new_waiter(waiting.client_socket(request.environ), allow_half_open=False)
    try:
        slot.attach(waiter)
        last = _last_data(stream.events(waiter))
    except ClientDisconnected:
        return Response(status=ClientDisconnected.status)
    finally:
        waiter.close()
        hooks.add_log_fields(stream.finish())
    if stream.error is not None:
        raise detached(stream.error)
    response = jsonify(openai.completion(message_id, completion, last))
    response.headers["X-Message-ID"] = message_id
    return response


def _last_data(events: Iterator[Event | None]) -> str:
    """The data of the last event. Raises ClientDisconnected."""
    last = ""
    for event in events:
        if event is not None:
            last = event.data
    return last
