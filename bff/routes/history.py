"""/api/chat/history: what this user said and was answered, page by page."""

from typing import Final

from flask import Blueprint, Response, jsonify, request

from bff.errors import InvalidRequest
from bff.routes import door
from bff.routes.waiting import asking_once

bp = Blueprint("history", __name__, url_prefix="/api/chat/history")

LIMIT_MOST: Final = 50
OFFSET_MOST: Final = 10**9


@bp.get("")
def history() -> Response:
    """`order=newest`: the last turn first, and `offset` counts from the end."""
    limit = max(1, min(door.whole("limit", LIMIT_MOST), LIMIT_MOST))
    offset = door.whole("offset", 0)
    if not 0 <= offset <= OFFSET_MOST:
        raise InvalidRequest(f"offset: must be between 0 and {OFFSET_MOST}.")
    order = request.args.get("order", "oldest")
    if order not in {"oldest", "newest"}:
        raise InvalidRequest("order: must be oldest or newest.")
    with asking_once() as (who, _, watch):
        engine = door.parts().engine
        turns = (engine.newest if order == "newest" else engine.history)(who, limit, offset, watch)
    return jsonify(user_id=who.user_id, entries=turns.entries, total_count=turns.total, limit=limit, offset=offset)
