"""The engine's HTTP contract for stored data: history, preferences, spoken replies."""

from typing import Annotated, Any, Final
from uuid import UUID

from flask import Blueprint, Response, jsonify, request
from pydantic import BaseModel, StrictStr, StringConstraints

from bff.auth.identity import Identity
from bff.db.direct_chat import DirectChat, Turn
from bff.engine import hooks, voice
from bff.errors import InvalidRequest, NotFound
from bff.http import request_body

MAX_PAGE: Final = 50
MAX_OWNER_CHARACTERS: Final = 400
"""The size of the database column."""
USER: Final = "/api/v1/orgs/<org>/users/<any_text:user_id>"

bp = Blueprint("user_data", __name__)
bp.before_request(hooks.check_key)


class PreferenceChanges(BaseModel):
    response_language: Annotated[StrictStr, StringConstraints(pattern=r"^[a-z]{2}$")] = ""


@bp.get(f"{USER}/history")
def history(org: str, user_id: str) -> Response:
    identity = Identity(user_id, org)
    limit, offset = request.args.get("limit", MAX_PAGE, int), request.args.get("offset", 0, int)
    turns, total = _direct().turns(identity.owner, max(1, min(limit, MAX_PAGE)), max(0, offset))
    if not total:
        raise NotFound
    url_prefix = hooks.audio_url_prefix(identity)
    entries = [_entry(turn, url_prefix) for turn in turns]
    return jsonify(user_id=user_id, entries=entries, total_count=total, limit=limit, offset=offset)


def _direct() -> DirectChat:
    return hooks.parts().turns.direct_chat


def _entry(turn: Turn, url_prefix: str) -> dict[str, Any]:
    entry = {
        "user_message": turn.question,
        "assistant_response": turn.reply,
        "timestamp": turn.created_at,
        "created_at": turn.created_at,
    }
    return entry | ({"voice_audio_url": f"{url_prefix}{turn.reply_id}.wav"} if turn.spoken else {})


@bp.get(f"{USER}/preferences")
def preferences(org: str, user_id: str) -> Response:
    language = _direct().language(Identity(user_id, org).owner)
    if not language:
        raise NotFound
    return jsonify(response_language=language)


@bp.put(f"{USER}/preferences")
def set_preferences(org: str, user_id: str) -> Response:
    owner = Identity(user_id, org).owner
    if len(owner) > MAX_OWNER_CHARACTERS:
        raise InvalidRequest
    changes = request_body.parse(PreferenceChanges, hooks.body())
    if changes.response_language:
        _direct().set_language(owner, changes.response_language)
    return jsonify(response_language=_direct().language(owner) or None)


@bp.get("/api/v1/audio/replies/<org>/<any_text:user_id>/<uuid:reply_id>.wav")
def spoken_reply(org: str, user_id: str, reply_id: UUID) -> Response:
    """Synthesized on each request; the audio is not stored."""
    text = _direct().spoken_reply(Identity(user_id, org).owner, reply_id)
    if text is None:
        raise NotFound
    response = Response(voice.speak(text), content_type="audio/wav")
    response.headers["Cache-Control"] = "private, max-age=3600"
    response.set_etag(str(reply_id))
    return response
