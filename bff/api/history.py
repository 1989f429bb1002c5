"""/api/chat/history: what this user said and was answered, page by page."""

from typing import Final

from flask import Blueprint, Response, jsonify, request

from bff.api import hooks, services
from bff.api.engine_request import engine_request
from bff.errors import InvalidRequest

bp = Blueprint("history", __name__, url_prefix="/api/chat/history")

LIMIT_MOST: Final = 50
OFFSET_MOST: Final = 10**9


@bp.get("")
def history() -> Response:
    """`order=newest`: the last turn first, and `offset` counts from the end."""
    limit = max(1, min(hooks.integer("limit", LIMIT_MOST), LIMIT_MOST))
    offset = hooks.integer("offset", 0)
    if not 0 <= offset <= OFFSET_MOST:
        raise InvalidRequest(f"offset: must be between 0 and {OFFSET_MOST}.")
    order = request.args.get("order", "oldest")
    if order not in {"oldest", "newest"}:
        raise InvalidRequest("order: must be oldest or newest.")
    with engine_request() as (who, _, waiter):
        engine = services.parts().engine
        turns = (engine.newest if order == "newest" else engine.history)(who, limit, offset, waiter)
    return jsonify(user_id=who.user_id, entries=turns.entries, total_count=turns.total, limit=limit, offset=offset)
