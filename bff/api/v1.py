"""/v1: chat completions and models for OpenAI's clients. With AUTH_MODE=jwt their API key is the user's token."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

from flask import Blueprint, Response, jsonify, request

from bff import errors
from bff.api import hooks, models, reply_stream, request_state, services
from bff.api.adapters import openai
from bff.api.adapters.base import Sent
from bff.api.adapters.openai import OPENAI, OpenAiEncoder
from bff.api.adapters.openai_request import CompletionRequest, characters
from bff.api.destination import Destination, choose_destination, enqueue_content
from bff.api.openapi import (
    AUTH_ERRORS,
    BODY_ERRORS,
    LIMIT_ERRORS,
    REPLY_ERRORS,
    UPSTREAM_ERRORS,
    ResponseSpec,
    describe,
)
from bff.api.openapi.parameters import IDEMPOTENCY_KEY
from bff.api.openapi.schemas import Chunk, Completion, ModelName, ModelNames, OpenAIProblem
from bff.errors import TooLarge, detached
from bff.http import waiting
from bff.http.sse import Event
from bff.http.streams import Slot
from bff.upstream import messages
from bff.upstream.messages import ChatRequest
from bff.upstream.reconnect import Reply

bp = Blueprint("openai", __name__, url_prefix="/v1")
hooks.add_hooks(bp)

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
        *REPLY_ERRORS,
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
    completion_request: CompletionRequest = parsed.context["request"]
    model = completion_request.model
    completion_request.check(models.features(model))
    message = messages.parse(parsed.body, request.headers.get("Idempotency-Key"))
    parts.rate.acquire(identity.user_id)
    # These clients can neither resume a reply nor stop it, except by disconnecting.
    content = _content(message, completion_request) | {"on_disconnect": "cancel"}
    with parts.streams.acquire(identity.user_id) as slot:
        broker, deadline, more = _destination(model, identity.user_id)
        message_id = broker.enqueue(identity, content | more, deadline).message_id
        reply = broker.follow(identity.user_id, message_id, deadline)
        # A client that sent a key may repeat a broken call with it: its reply is not cancelled before the broker's grace.
        is_own = broker is parts.own_broker and message.client_message_id is None
        callback = reply_stream.disconnect_callback(broker, identity.user_id, message_id) if is_own else None
        context = {"model": model, "created": int(time.time()), "include_usage": completion_request.includes_usage}
        if not completion_request.stream:
            return _completion_response(reply, message_id, slot, context, callback)
        encoder = OpenAiEncoder(message_id, context, Sent.NOTHING)
        return reply_stream.stream_response(
            reply, message_id, slot, OPENAI, encoder, kind="v1", broker=broker, on_reader_gone=callback
        )


def _destination(model: str, user_id: str) -> Destination:
    if model == models.DEFAULT:
        return choose_destination(user_id)
    broker = services.parts().own_broker
    return Destination(broker, broker.open_deadline(), {})


def _content(message: ChatRequest, completion_request: CompletionRequest) -> dict[str, Any]:
    """For direct chat the last message only, as its engine stores the history. An agent gets all messages, in a new group."""
    content = enqueue_content(message, services.parts().settings)
    model = completion_request.model
    if model == models.DEFAULT:
        return content
    features = models.features(model)
    history = completion_request.history(features)
    if characters(history) > MAX_CHARACTERS:
        raise TooLarge("messages: too much for an agent.")
    own_group = {"group": _group(message), "on_busy": "enqueue"}
    agent = {
        "handler": "bundled",
        "agent_id": model,
        "messages": history,
        "options": completion_request.options(features),
    }
    return content | own_group | agent


def _group(message: ChatRequest) -> str:
    """Each call has a group of its own, so that calls run side by side; calls with the same Idempotency-Key share one."""
    key = message.client_message_id
    return f"v1:{sha256(key.encode()).hexdigest() if key else uuid.uuid4()}"


@bp.get("/models")
@describe("List the models.", {200: ResponseSpec("All models.", ModelNames)}, AUTH_ERRORS, problem=OpenAIProblem)
def list_models() -> Response:
    hooks.identity()
    return jsonify(openai.models(models.names()))


@bp.get("/models/<path:name>")
@describe(
    "Get a model.",
    {200: ResponseSpec("The model.", ModelName)},
    (*AUTH_ERRORS, errors.NotFound),
    problem=OpenAIProblem,
)
def show_model(name: str) -> Response:
    hooks.identity()
    models.check(name)
    return jsonify(openai.model(name))


def _completion_response(
    reply: Reply,
    message_id: str,
    slot: Slot,
    completion: Mapping[str, Any],
    on_reader_gone: Callable[[], None] | None,
) -> Response:
    """Waits for the end of the reply. `completion`: see OpenAiEncoder.

    Raises the error that the reply ended with, ClientDisconnected.
    """
    hooks.release_with_response(slot)
    stream = reply_stream.new_reply_stream(reply, message_id, kind="v1", on_reader_gone=on_reader_gone)
    waiter = waiting.new_waiter(waiting.client_socket(request.environ), allow_half_open=False)
    try:
        slot.attach(waiter)
        last = _last_data(stream.events(waiter))
    finally:
        waiter.close()
        request_state.add_log_fields(stream.finish())
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
