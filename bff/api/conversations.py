"""/api/conversations and /api/agents: stored conversations, their messages, and the agents that reply."""

import contextlib
from typing import Final, TypeVar
from uuid import UUID

from flask import Blueprint, Response, jsonify, request
from pydantic import ValidationError

from bff import errors
from bff.api import hooks, reply_stream, schemas, services
from bff.api.adapters import conversation
from bff.api.conversation_replies import OpenedReply, ReplyRuns
from bff.api.openapi import (
    AUTH_ERRORS,
    BODY_ERRORS,
    LIMIT_ERRORS,
    STORE_ERRORS,
    UPSTREAM_ERRORS,
    ResponseSpec,
    describe,
)
from bff.api.openapi.parameters import BRANCHES, CURSOR_PAGE, EVENT_SOURCE, IDS
from bff.api.openapi.responses import CONVERSATION_STREAM, STOPPING
from bff.api.openapi.schemas import Agents, Conversation, ConversationMessage, Conversations, Messages
from bff.api.schemas import EditMessage, NewConversation, NewMessage, StreamQuery, UpdateConversation
from bff.db.store import ConversationStore
from bff.errors import ChatError, InvalidRequest
from bff.http import event_ids, request_body
from bff.http.responses import HEADERS, EventStream, StreamOptions
from bff.http.sse import comment
from bff.http.streams import Slot

bp = Blueprint("conversations", __name__, url_prefix="/api")
hooks.add_hooks(bp)

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 100
MAX_BODY_BYTES: Final = 1024 * 1024
"""Enough for MAX_CONTENT_CHARACTERS, however they are escaped."""
PREAMBLE: Final = b":ok\n\n"

Model = TypeVar("Model", NewConversation, UpdateConversation, NewMessage, EditMessage)


@bp.get("/agents")
@describe("List the agents.", {200: ResponseSpec("All agents.", Agents)}, AUTH_ERRORS)
def agents() -> Response:
    hooks.identity()
    return jsonify(agents=[agent.as_json() for agent in _runs().agents.values()])


@bp.get("/conversations")
@describe(
    "List the user's conversations, the latest activity first.",
    {200: ResponseSpec("A page of conversations.", Conversations)},
    STORE_ERRORS,
    parameters=CURSOR_PAGE,
)
def list_conversations() -> Response:
    page = _store().recent(_owner(), _limit(), request.args.get("cursor", ""))
    return jsonify(conversations=[schemas.conversation(row) for row in page.rows], nextCursor=page.next_cursor)


@bp.post("/conversations")
@describe(
    "Create a conversation.",
    {201: ResponseSpec("The new conversation.", Conversation)},
    (*STORE_ERRORS, *BODY_ERRORS),
    bodies=(NewConversation,),
)
def create() -> tuple[Response, int]:
    owner, body = _owner(), _body(NewConversation)
    _runs().agent(body.agent_id)
    return jsonify(schemas.conversation(_store().create(owner, body.title, body.agent_id))), 201


@bp.get("/conversations/<uuid:conversation_id>")
@describe("Get a conversation.", {200: ResponseSpec("The conversation.", Conversation)}, STORE_ERRORS)
def show(conversation_id: UUID) -> Response:
    return jsonify(schemas.conversation(_store().get(_owner(), conversation_id)))


@bp.patch("/conversations/<uuid:conversation_id>")
@describe(
    "Change a conversation, or switch its branch. Missing fields stay unchanged; null clears a field.",
    {200: ResponseSpec("The changed conversation.", Conversation)},
    (*STORE_ERRORS, *BODY_ERRORS),
    bodies=(UpdateConversation,),
)
def update(conversation_id: UUID) -> Response:
    owner, body = _owner(), _body(UpdateConversation)
    _runs().agent(body.agent_id)
    return jsonify(schemas.conversation(_store().update(owner, conversation_id, body.changes())))


@bp.delete("/conversations/<uuid:conversation_id>")
@describe("Delete a conversation and its messages.", {204: ResponseSpec("It is deleted.")}, STORE_ERRORS)
def delete(conversation_id: UUID) -> tuple[str, int]:
    identity = hooks.identity()
    _store().delete(identity.owner, conversation_id)
    with contextlib.suppress(ChatError):  # A reply that goes on cannot be stored any more.
        _runs().stop(identity, conversation_id)
    return "", 204


@bp.get("/conversations/<uuid:conversation_id>/messages")
@describe(
    "List the messages of a conversation's current branch, or of all branches, oldest first.",
    {200: ResponseSpec("A page of messages.", Messages)},
    STORE_ERRORS,
    parameters=(*CURSOR_PAGE, BRANCHES),
)
def list_messages(conversation_id: UUID) -> Response:
    owner, branches = _owner(), request.args.get("branches", "current")
    if branches not in ("current", "all"):
        raise InvalidRequest("branches: must be current or all.")
    list_page = _store().all_messages if branches == "all" else _store().messages
    page = list_page(owner, conversation_id, _limit(), request.args.get("cursor", ""))
    return jsonify(messages=[schemas.message(row) for row in page.rows], nextCursor=page.next_cursor)


@bp.post("/conversations/<uuid:conversation_id>/messages")
@describe(
    "Add a message to a conversation, after the current message or after `parentId`. It becomes the current message.",
    {201: ResponseSpec("The stored message.", ConversationMessage)},
    (*STORE_ERRORS, *BODY_ERRORS, errors.TooManyRequests),
    bodies=(NewMessage,),
)
def create_message(conversation_id: UUID) -> tuple[Response, int]:
    owner, body = _owner(), _body(NewMessage)
    # Counted apart from the replies: no user id has a NUL.
    services.parts().rate.acquire(f"{hooks.identity().user_id}\0messages")
    return jsonify(schemas.message(_store().add_message(owner, conversation_id, body.content, body.parent))), 201


@bp.put("/conversations/<uuid:conversation_id>/messages/<uuid:message_id>")
@describe(
    "Edit a message. Agents get the new text; the original is kept.",
    {200: ResponseSpec("The edited message.", ConversationMessage)},
    (*STORE_ERRORS, *BODY_ERRORS),
    bodies=(EditMessage,),
)
def edit_message(conversation_id: UUID, message_id: UUID) -> Response:
    owner, body = _owner(), _body(EditMessage)
    return jsonify(schemas.message(_store().edit_message(owner, conversation_id, message_id, body.content)))


@bp.get("/conversations/<uuid:conversation_id>/stream")
@describe(
    "Stream an agent's reply to the last message, or to `messageId`.",
    {
        200: CONVERSATION_STREAM,
        204: ResponseSpec("The message has a reply already, or the reader has seen its end."),
    },
    (*STORE_ERRORS, *LIMIT_ERRORS, *UPSTREAM_ERRORS, errors.Busy),
    query=StreamQuery,
    parameters=(*EVENT_SOURCE, IDS),
)
def stream(conversation_id: UUID) -> Response:
    """Starts a reply, although it is a GET: `EventSource` sends nothing else. Status 204, which ends it, if none is left."""
    identity = hooks.identity_or_ticket()
    query = _stream_query()
    after = event_ids.from_reader(request.headers.get("Last-Event-ID", ""), request.args.get("last_event_id", ""))
    if request.method == "HEAD":
        _store().get(identity.owner, conversation_id)
        return Response(content_type="text/event-stream; charset=utf-8", headers=HEADERS)
    with services.parts().streams.acquire(identity.user_id, resumable=True) as slot:
        opened = _runs().open(identity, conversation_id, query, after)
        if opened is not None:
            return _stream_response(opened, slot, query)
        slot.release()
        return Response(status=204)


@bp.post("/conversations/<uuid:conversation_id>/stop")
@describe("Stop the running reply. Idempotent.", {202: STOPPING}, (*STORE_ERRORS, *UPSTREAM_ERRORS))
def stop(conversation_id: UUID) -> tuple[Response, int]:
    identity = hooks.identity()
    _store().get(identity.owner, conversation_id)
    _runs().stop(identity, conversation_id)
    return jsonify(status="stopping"), 202


def _stream_response(opened: OpenedReply, slot: Slot, query: StreamQuery) -> Response:
    settings = services.parts().settings
    broker = services.parts().own_broker
    stream = reply_stream.new_reply_stream(
        opened.reply,
        opened.message_id,
        kind="conversation",
        resumed=opened.resumed,
        resumable=slot.resumable,
        on_reader_gone=reply_stream.disconnect_callback(broker, slot.user_id, opened.message_id),
    )
    reply_stream.prepare_for_drain(slot, broker)
    return EventStream(
        lambda waiter: conversation.encode(stream.events(waiter), restarted=opened.restarted),
        StreamOptions(
            comment("keepalive"),
            settings.heartbeat_seconds,
            ids=request.args.get("ids") != "0",
            preamble=PREAMBLE,
        ),
        environ=request.environ,
        slot=slot,
        close=stream.close,
        stats=stream.stats,
        headers=reply_stream.message_headers(opened.message_id, query.on_disconnect or settings.conversation_on_disconnect),
    )


def _store() -> ConversationStore:
    return services.parts().store


def _runs() -> ReplyRuns:
    return services.parts().runs


def _owner() -> str:
    return hooks.identity().owner


def _body(model: type[Model]) -> Model:
    return request_body.parse(model, hooks.body(MAX_BODY_BYTES))


def _stream_query() -> StreamQuery:
    try:
        return StreamQuery.model_validate(request.args.to_dict())
    except ValidationError as error:
        raise InvalidRequest(request_body.error_message(error)) from None


def _limit() -> int:
    return max(1, min(hooks.query_integer("limit", DEFAULT_LIMIT), MAX_LIMIT))
