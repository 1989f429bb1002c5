"""The engine's HTTP contract for what it keeps: history, preferences, spoken answers."""

from typing import Annotated, Any, Final

from flask import Blueprint, Response, jsonify, request
from pydantic import BaseModel, StrictStr, StringConstraints

from bff import bodies
from bff.engine import door, tone
from bff.engine.memory import Owner, Turn
from bff.errors import InvalidRequest, NotFound

PAGE_MOST: Final = 50
USER: Final = "/api/v1/orgs/<org>/users/<any_text:user_id>"

bp = Blueprint("kept", __name__)
bp.before_request(door.check_key)


class Changes(BaseModel):
    response_language: Annotated[StrictStr, StringConstraints(pattern=r"^[a-z]{2}$")] = ""


@bp.get(f"{USER}/history")
def history(org: str, user_id: str) -> Response:
    owner = Owner(org, user_id)
    limit, offset = request.args.get("limit", PAGE_MOST, int), request.args.get("offset", 0, int)
    turns = door.parts().memory.turns(owner)
    if not turns:
        raise NotFound
    page = turns[max(0, offset) :][: max(1, min(limit, PAGE_MOST))]
    urls = door.audio_urls(owner)
    entries = [_entry(turn, urls) for turn in page]
    return jsonify(user_id=user_id, entries=entries, total_count=len(turns), limit=limit, offset=offset)


def _entry(turn: Turn, urls: str) -> dict[str, Any]:
    entry = {
        "user_message": turn.user_message,
        "assistant_response": turn.assistant_response,
        "timestamp": turn.created_at,
        "created_at": turn.created_at,
    }
    return entry | ({"voice_audio_url": f"{urls}{turn.id}.wav"} if turn.spoken else {})


@bp.get(f"{USER}/preferences")
def preferences(org: str, user_id: str) -> Response:
    language = door.parts().memory.language(Owner(org, user_id))
    if not language:
        raise NotFound
    return jsonify(response_language=language)


@bp.put(f"{USER}/preferences")
def prefer(org: str, user_id: str) -> Response:
    owner, memory = Owner(org, user_id), door.parts().memory
    if len(user_id) > door.ID_MAX or len(org) > door.ID_MAX:
        raise InvalidRequest
    changes = bodies.validated(Changes, door.body())
    if changes.response_language:
        memory.choose(owner, changes.response_language)
    return jsonify(response_language=memory.language(owner) or None)


@bp.get("/api/v1/audio/replies/<org>/<any_text:user_id>/<turn_id>.wav")
def hear(org: str, user_id: str, turn_id: str) -> Response:
    """Made when it is asked for: nothing of it is kept."""
    turns = door.parts().memory.turns(Owner(org, user_id))
    turn = next((turn for turn in turns if turn.spoken and turn.id == turn_id), None)
    if turn is None:
        raise NotFound
    response = Response(tone.speak(turn.assistant_response), content_type="audio/wav")
    response.headers["Cache-Control"] = "private, max-age=3600"
    response.set_etag(turn.id)
    return response
