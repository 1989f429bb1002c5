"""/api/conversations and /api/agents: what is said is kept, edited, and answered by an agent."""

from dataclasses import dataclass
from typing import Final, TypeVar
from uuid import UUID

from flask import Blueprint, Response, current_app, jsonify, request
from pydantic import ValidationError

from bff import bodies
from bff.conversations import schemas
from bff.conversations.schemas import EditMessage, NewConversation, NewMessage, StreamMessage, UpdateConversation
from bff.conversations.store import ConversationStore
from bff.conversations.turns import Turn, Turns
from bff.errors import InvalidRequest
from bff.ops.rate import Rate
from bff.ops.streams import Slot
from bff.routes import door
from bff.sse import comment
from bff.streaming import EventStream, How

bp = Blueprint("conversations", __name__, url_prefix="/api")

PAGE: Final = 50
PAGE_MOST: Final = 100
BODY_MOST: Final = 1024 * 1024
"""Bytes: CONTENT_MOST characters, however they are escaped."""
OPENING: Final = b":ok\n\n"

Model = TypeVar("Model", NewConversation, UpdateConversation, NewMessage, EditMessage)


@dataclass(frozen=True)
class Parts:
    store: ConversationStore
    turns: Turns
    runs: Rate
    """Replies a user may ask for: one that fails is asked for again by `EventSource`, for ever."""


def _parts() -> Parts:
    parts: Parts = current_app.extensions["conversations"]
    return parts


def _owner() -> str:
    return door.identity().owner


@bp.get("/agents")
def agents() -> Response:
    door.identity()
    listed = _parts().turns.agents.values()
    return jsonify(agents=[{"id": agent.id, "name": agent.name, "description": agent.description} for agent in listed])


@bp.get("/conversations")
def recent() -> Response:
    page = _parts().store.recent(_owner(), _limit(), request.args.get("cursor", ""))
    return jsonify(conversations=[schemas.conversation(row) for row in page.rows], nextCursor=page.next_cursor)


@bp.post("/conversations")
def create() -> tuple[Response, int]:
    owner, asked = _owner(), _said(NewConversation)
    _parts().turns.agent(asked.agent_id)
    return jsonify(schemas.conversation(_parts().store.create(owner, asked.title, asked.agent_id))), 201


@bp.get("/conversations/<uuid:conversation_id>")
def show(conversation_id: UUID) -> Response:
    return jsonify(schemas.conversation(_parts().store.get(_owner(), conversation_id)))


@bp.patch("/conversations/<uuid:conversation_id>")
def update(conversation_id: UUID) -> Response:
    owner, asked = _owner(), _said(UpdateConversation)
    _parts().turns.agent(asked.agent_id)
    return jsonify(schemas.conversation(_parts().store.update(owner, conversation_id, asked.changes())))


@bp.delete("/conversations/<uuid:conversation_id>")
def delete(conversation_id: UUID) -> tuple[str, int]:
    _parts().store.delete(_owner(), conversation_id)
    return "", 204


@bp.get("/conversations/<uuid:conversation_id>/messages")
def messages(conversation_id: UUID) -> Response:
    page = _parts().store.messages(_owner(), conversation_id, _limit(), request.args.get("cursor", ""))
    return jsonify(messages=[schemas.message(row) for row in page.rows], nextCursor=page.next_cursor)


@bp.post("/conversations/<uuid:conversation_id>/messages")
def say(conversation_id: UUID) -> tuple[Response, int]:
    owner, asked = _owner(), _said(NewMessage)
    door.parts().rate.count(door.identity().user_id)
    return jsonify(schemas.message(_parts().store.add_message(owner, conversation_id, asked.content))), 201


@bp.put("/conversations/<uuid:conversation_id>/messages/<uuid:message_id>")
def edit(conversation_id: UUID, message_id: UUID) -> Response:
    owner, asked = _owner(), _said(EditMessage)
    return jsonify(schemas.message(_parts().store.edit_message(owner, conversation_id, message_id, asked.content)))


@bp.get("/conversations/<uuid:conversation_id>/stream")
def stream(conversation_id: UUID) -> Response:
    """It changes what is kept, although it is a GET: `EventSource` knows no other."""
    identity = door.identity_of_reader()
    wish = _wish()
    with door.parts().streams.enter(identity.user_id) as slot:
        _parts().runs.count(identity.user_id)
        turn = _parts().turns.begin(identity, conversation_id, wish, _seen(), door.request_id())
        if turn is not None:
            return _stream(turn, slot)
        slot.release()
        return Response(status=204)  # Which tells `EventSource` not to come back.


def _stream(turn: Turn, slot: Slot) -> Response:
    settings = door.parts().settings
    how = How(comment("keepalive"), settings.heartbeat_seconds, settings.slow_reader_seconds, opening=OPENING)
    return EventStream(turn.say, how, environ=request.environ, slot=slot, close=turn.close)


def _said(model: type[Model]) -> Model:
    return bodies.validated(model, door.body(BODY_MOST))


def _wish() -> StreamMessage:
    try:
        return StreamMessage.model_validate(request.args.to_dict())
    except ValidationError as error:
        raise InvalidRequest(bodies.sentence(error)) from None


def _seen() -> UUID | None:
    """The reply whose end an `EventSource` has seen; anything but a UUID names none."""
    try:
        return UUID(request.headers.get("Last-Event-ID", ""))
    except ValueError:
        return None


def _limit() -> int:
    return max(1, min(door.whole("limit", PAGE), PAGE_MOST))
