"""/v1/responses: OpenAI's Responses API. Responses are stored, can run in the background, and their streams can be resumed."""

import json
from typing import Any, Final

from flask import Blueprint, Response, jsonify, request

from bff import errors
from bff.api import hooks, reconnects, reply_stream, request_state, response_runs, services
from bff.api.adapters import response_objects as objects
from bff.api.adapters import responses, responses_request
from bff.api.adapters.response_objects import Head
from bff.api.adapters.responses import FROM_START, ResponseEncoder
from bff.api.adapters.responses_request import ResponseRequest
from bff.api.openapi import (
    AUTH_ERRORS,
    BODY_ERRORS,
    LIMIT_ERRORS,
    REPLY_ERRORS,
    UPSTREAM_ERRORS,
    Parameter,
    ResponseSpec,
    describe,
)
from bff.api.openapi.parameters import CHAT_RESUME, IDEMPOTENCY_KEY, text
from bff.api.openapi.responses import RESPONSE_EVENTS
from bff.api.openapi.schemas import DeletedResponse, InputItems, ModelResponse, OpenAIProblem
from bff.api.response_runs import StartedResponse
from bff.errors import InvalidRequest, detached
from bff.http import waiting
from bff.http.responses import EventStream, StreamOptions
from bff.http.sse import comment
from bff.http.streams import Slot
from bff.http.waiting import Waiter
from bff.upstream.reconnect import Reply

bp = Blueprint("responses", __name__, url_prefix="/v1/responses")
hooks.add_hooks(bp)

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100
KEEPALIVE: Final = comment("keepalive")
_HEADERS: Final = {"X-Message-ID": "The id of the response's message in the queue."}
_STREAM: Final = Parameter("stream", {"type": "boolean"}, "Follow the events instead.")
_STARTING_AFTER: Final = Parameter(
    "starting_after", {"type": "integer", "minimum": 0}, "With `stream`: only the events after this sequence_number."
)
_PAGE: Final = (
    Parameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}, f"Default {DEFAULT_LIMIT}."),
    Parameter("order", {"enum": ["asc", "desc"]}, "Default desc."),
    Parameter("after", text(), "The id of the last item of the previous page."),
)
_ERRORS: Final = (*AUTH_ERRORS, errors.NotFound, *UPSTREAM_ERRORS)


@bp.post("")
@describe(
    "Create a response; with `stream` it is streamed, with `background` it continues without its readers.",
    {200: ResponseSpec("The response, or its events.", ModelResponse, headers=_HEADERS, events=RESPONSE_EVENTS)},
    (
        *AUTH_ERRORS,
        *BODY_ERRORS,
        *LIMIT_ERRORS,
        *UPSTREAM_ERRORS,
        *REPLY_ERRORS,
        errors.NotFound,
        errors.Expired,
        errors.IdempotencyConflict,
    ),
    problem=OpenAIProblem,
    bodies=(ResponseRequest,),
    parameters=(IDEMPOTENCY_KEY, CHAT_RESUME),
)
def create() -> Response:
    identity = hooks.identity()
    body = responses_request.parse(hooks.body())
    key = request.headers.get("Idempotency-Key")
    if body.background and not body.stream:
        started = response_runs.start(identity, body, key)
        return _json(response_runs.snapshot(identity, started.head.id, _new_waiter), started.message_id)
    with services.parts().streams.acquire(identity.user_id, resumable=reconnects.client_resumes()) as slot:
        started = response_runs.start(identity, body, key)
        if started.has_ended and not body.stream:
            hooks.release_with_response(slot)
            return _json(response_runs.snapshot(identity, started.head.id, _new_waiter), started.message_id)
        reply = response_runs.follow(identity, started.message_id)
        return _streamed(started, reply, slot, FROM_START) if body.stream else _whole(started, reply, slot)


@bp.get("/<response_id>")
@describe(
    "Get a response. With `stream`, follow its events, from any of them and as often as needed.",
    {200: ResponseSpec("The response, or its events.", ModelResponse, events=RESPONSE_EVENTS)},
    (*_ERRORS, *LIMIT_ERRORS, errors.Expired),
    problem=OpenAIProblem,
    parameters=(_STREAM, _STARTING_AFTER, CHAT_RESUME),
)
def show(response_id: str) -> Response:
    identity = hooks.identity()
    after, is_stream = _starting_after(), _boolean("stream")
    _refuse_include()
    if not is_stream:
        if after != FROM_START:
            raise InvalidRequest("starting_after: needs stream=true.", param="starting_after")
        return _json(response_runs.snapshot(identity, response_id, _new_waiter))
    with services.parts().streams.acquire(identity.user_id, resumable=reconnects.client_resumes()) as slot:
        row = response_runs.find(identity, response_id)
        reply = response_runs.follow(identity, row.message_id)
        return _streamed(StartedResponse(response_runs.head(row), row.message_id), reply, slot, after)


@bp.post("/<response_id>/cancel")
@describe(
    "Stop a response. Idempotent: one that has ended stays as it is.",
    {200: ResponseSpec("The response.", ModelResponse)},
    _ERRORS,
    problem=OpenAIProblem,
)
def cancel(response_id: str) -> Response:
    return _json(response_runs.cancel(hooks.identity(), response_id, _new_waiter))


@bp.delete("/<response_id>")
@describe(
    "Delete a response with its input. Later responses of its chain stay, without this turn in their history.",
    {200: ResponseSpec("It is deleted.", DeletedResponse)},
    _ERRORS,
    problem=OpenAIProblem,
)
def delete(response_id: str) -> Response:
    response_runs.delete(hooks.identity(), response_id)
    return jsonify(id=response_id, object="response", deleted=True)


@bp.get("/<response_id>/input_items")
@describe(
    "List the input items of a response.",
    {200: ResponseSpec("A page of items.", InputItems)},
    (*AUTH_ERRORS, errors.NotFound, errors.UpstreamUnavailable),
    problem=OpenAIProblem,
    parameters=_PAGE,
)
def input_items(response_id: str) -> Response:
    identity = hooks.identity()
    _refuse_include()
    limit, order = _limit(), request.args.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise InvalidRequest("order: must be asc or desc.", param="order")
    row = response_runs.find(identity, response_id)
    stored = services.parts().responses.input_items(identity.owner, row.id)
    items = [objects.input_item(item.id, item.role, item.parts) for item in stored if item.id is not None]
    if order == "desc":
        items.reverse()
    rest = _items_after(items, request.args.get("after", ""))
    return jsonify(objects.item_list(rest[:limit], has_more=len(rest) > limit))


def _streamed(started: StartedResponse, reply: Reply, slot: Slot, after: int) -> Response:
    """`after`: see `responses.encode`."""
    settings, broker = services.parts().settings, services.parts().own_broker
    encoder = ResponseEncoder(started.head)
    on_reader_gone = reply_stream.disconnect_callback(broker, slot.user_id, started.message_id)
    stream = reply_stream.new_reply_stream(
        reply,
        started.message_id,
        kind="v1",
        encoder=encoder,
        resumed=request.method == "GET",
        resumable=slot.resumable,
        on_reader_gone=None if started.head.fields["background"] else on_reader_gone,
    )
    reply_stream.prepare_for_drain(slot, broker)
    return EventStream(
        lambda waiter: responses.encode(stream.events(waiter), encoder, after),
        StreamOptions(KEEPALIVE, settings.heartbeat_seconds),
        environ=request.environ,
        slot=slot,
        close=stream.close,
        stats=stream.stats,
        headers=reply_stream.message_headers(started.message_id, _on_disconnect(started.head)),
    )


def _whole(started: StartedResponse, reply: Reply, slot: Slot) -> Response:
    """Waits for the end. Raises the error that the reply ended with, ClientDisconnected."""
    hooks.release_with_response(slot)
    on_reader_gone = reply_stream.disconnect_callback(services.parts().own_broker, slot.user_id, started.message_id)
    encoder, last, waiter = ResponseEncoder(started.head), "", _new_waiter()
    stream = reply_stream.new_reply_stream(reply, started.message_id, kind="v1", encoder=encoder, on_reader_gone=on_reader_gone)
    try:
        slot.attach(waiter)
        for event in responses.encode(stream.events(waiter), encoder, FROM_START):
            last = last if event is None else event.data
    finally:
        waiter.close()
        request_state.add_log_fields(stream.finish())
    if stream.error is not None:
        raise detached(stream.error)
    return _json(json.loads(last)["response"], started.message_id)


def _json(response: dict[str, Any], message_id: str = "") -> Response:
    answer = jsonify(response)
    if message_id:
        answer.headers["X-Message-ID"] = message_id
    return answer


def _new_waiter() -> Waiter:
    """Raises ClientDisconnected where it waits, once the client has left."""
    return waiting.new_waiter(waiting.client_socket(request.environ), allow_half_open=False)


def _on_disconnect(head: Head) -> str:
    return "continue" if head.fields["background"] else "cancel"


def _starting_after() -> int:
    """FROM_START if there is none. Raises InvalidRequest."""
    text = request.args.get("starting_after")
    if text is None:
        return FROM_START
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise InvalidRequest("starting_after: must be a sequence_number.", param="starting_after")
    return int(text)


def _boolean(name: str) -> bool:
    """Raises InvalidRequest."""
    text = request.args.get(name, "false").lower()
    if text not in {"true", "false", "1", "0"}:
        raise InvalidRequest(f"{name}: must be true or false.", param=name)
    return text in {"true", "1"}


def _limit() -> int:
    """Raises InvalidRequest."""
    text = request.args.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdecimal() and len(text) < 4 and 1 <= int(text) <= MAX_LIMIT):
        raise InvalidRequest(f"limit: must be a number from 1 to {MAX_LIMIT}.", param="limit")
    return int(text)


def _refuse_include() -> None:
    """Raises InvalidRequest."""
    if any(name.partition("[")[0] == "include" for name in request.args):
        raise InvalidRequest("include: is not supported.", param="include")


def _items_after(items: list[dict[str, Any]], after: str) -> list[dict[str, Any]]:
    """Raises InvalidRequest."""
    if not after:
        return items
    ids = [item["id"] for item in items]
    if after not in ids:
        raise InvalidRequest("after: is not an item of this response.", param="after")
    return items[ids.index(after) + 1 :]
