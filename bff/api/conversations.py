"""/api/conversations and /api/agents: what is said is kept, edited, and answered by an agent."""

import contextlib
from typing import Final, TypeVar
from uuid import UUID

from flask import Blueprint, Response, jsonify, request
from pydantic import ValidationError

from bff.api import hooks, reply_stream, schemas, services
from bff.api.adapters import conversation
from bff.api.conversation_replies import Opened
from bff.api.schemas import EditMessage, NewConversation, NewMessage, StreamMessage, UpdateConversation
from bff.errors import ChatError, InvalidRequest
from bff.http import event_ids, request_body
from bff.http.responses import HEADERS, EventStream, StreamOptions
from bff.http.sse import comment
from bff.http.streams import Slot

bp = Blueprint("conversations", __name__, url_prefix="/api")

PAGE: Final = 50
MAX_PAGE: Final = 100
MAX_BODY_BYTES: Final = 1024 * 1024
"""Bytes: MAX_CONTENT_CHARACTERS characters, however they are escaped."""
OPENING: Final = b":ok\n\n"

Model = TypeVar("Model", NewConversation, UpdateConversation, NewMessage, EditMessage)


def _owner() -> str:
    return hooks.identity().owner


@bp.get("/agents")
def agents() -> Response:
    hooks.identity()
    return jsonify(agents=[agent._asdict() for agent in services.parts().runs.agents.values()])


@bp.get("/conversations")
def recent() -> Response:
    page = services.parts().store.recent(_owner(), _limit(), request.args.get("cursor", ""))
    return jsonify(conversations=[schemas.conversation(row) for row in page.rows], nextCursor=page.next_cursor)


@bp.post("/conversations")
def create() -> tuple[Response, int]:
    owner, asked = _owner(), _said(NewConversation)
    services.parts().runs.agent(asked.agent_id)
    return jsonify(schemas.conversation(services.parts().store.create(owner, asked.title, asked.agent_id))), 201


@bp.get("/conversations/<uuid:conversation_id>")
def show(conversation_id: UUID) -> Response:
    return jsonify(schemas.conversation(services.parts().store.get(_owner(), conversation_id)))


@bp.patch("/conversations/<uuid:conversation_id>")
def update(conversation_id: UUID) -> Response:
    owner, asked = _owner(), _said(UpdateConversation)
    services.parts().runs.agent(asked.agent_id)
    return jsonify(schemas.conversation(services.parts().store.update(owner, conversation_id, asked.changes())))


@bp.delete("/conversations/<uuid:conversation_id>")
def delete(conversation_id: UUID) -> tuple[str, int]:
    identity = hooks.identity()
    services.parts().store.delete(identity.owner, conversation_id)
    with contextlib.suppress(ChatError):  # It cannot be stored any more, in any case.
        services.parts().runs.stop(identity, conversation_id)
    return "", 204


@bp.get("/conversations/<uuid:conversation_id>/messages")
def messages(conversation_id: UUID) -> Response:
    page = services.parts().store.messages(_owner(), conversation_id, _limit(), request.args.get("cursor", ""))
    return jsonify(messages=[schemas.message(row) for row in page.rows], nextCursor=page.next_cursor)


@bp.post("/conversations/<uuid:conversation_id>/messages")
def say(conversation_id: UUID) -> tuple[Response, int]:
    owner, asked = _owner(), _said(NewMessage)
    services.parts().rate.acquire(f"{hooks.identity().user_id}\0messages")  # Apart from the replies, as no user id holds a NUL.
    return jsonify(schemas.message(services.parts().store.add_message(owner, conversation_id, asked.content))), 201


@bp.put("/conversations/<uuid:conversation_id>/messages/<uuid:message_id>")
def edit(conversation_id: UUID, message_id: UUID) -> Response:
    owner, asked = _owner(), _said(EditMessage)
    return jsonify(schemas.message(services.parts().store.edit_message(owner, conversation_id, message_id, asked.content)))


@bp.get("/conversations/<uuid:conversation_id>/stream")
def stream(conversation_id: UUID) -> Response:
    """It begins a reply, although it is a GET: `EventSource` knows no other."""
    identity = hooks.identity_of_reader()
    wish = _wish()
    after = event_ids.from_reader(request.headers.get("Last-Event-ID", ""), request.args.get("last_event_id", ""))
    if request.method == "HEAD":
        services.parts().store.get(identity.owner, conversation_id)
        return Response(content_type="text/event-stream; charset=utf-8", headers=HEADERS)
    with services.parts().streams.acquire(identity.user_id, comes_back=True) as slot:
        opened = services.parts().runs.open(identity, conversation_id, wish, after)
        if opened is not None:
            return _stream(opened, slot)
        slot.release()
        return Response(status=204)  # Which tells `EventSource` not to come back.


@bp.post("/conversations/<uuid:conversation_id>/stop")
def stop(conversation_id: UUID) -> tuple[Response, int]:
    identity = hooks.identity()
    services.parts().store.get(identity.owner, conversation_id)
    services.parts().runs.stop(identity, conversation_id)
    return jsonify(status="stopping"), 202


def _stream(opened: Opened, slot: Slot) -> Response:
    settings = services.parts().settings
    told = reply_stream.tell(
        opened.answer,
        opened.message_id,
        kind="conversation",
        resumed=opened.resumed,
        comes_back=slot.comes_back,
        own=True,
        leave=reply_stream.leaver(services.parts().own_broker, slot.user_id, opened.message_id),
    )
    reply_stream.prepare_for_drain(slot, services.parts().own_broker)
    return EventStream(
        lambda waiter: conversation.encode(told.say(waiter), restarted=opened.restarted),
        StreamOptions(
            comment("keepalive"),
            settings.heartbeat_seconds,
            ids=request.args.get("ids") != "0",
            preamble=OPENING,
        ),
        environ=request.environ,
        slot=slot,
        close=told.close,
        stats=told.stats,
        headers={"Location": f"/api/chat/stream/{opened.message_id}", "X-Message-ID": opened.message_id},
    )


def _said(model: type[Model]) -> Model:
    return request_body.validated(model, hooks.body(MAX_BODY_BYTES))


def _wish() -> StreamMessage:
    try:
        return StreamMessage.model_validate(request.args.to_dict())
    except ValidationError as error:
        raise InvalidRequest(request_body.error_message(error)) from None


def _limit() -> int:
    return max(1, min(hooks.integer("limit", PAGE), MAX_PAGE))
