"""/api/chat/history: the user's turns of direct chat, a page at a time."""

from typing import Final

from flask import Blueprint, Response, jsonify, request

from bff.api import hooks, services
from bff.api.engine_request import engine_request
from bff.errors import InvalidRequest

bp = Blueprint("history", __name__, url_prefix="/api/chat/history")
hooks.add_hooks(bp)

MAX_LIMIT: Final = 50
MAX_OFFSET: Final = 10**9


@bp.get("")
def history() -> Response:
    """With `order=newest` the last turn comes first, and `offset` counts from the end."""
    limit = max(1, min(hooks.query_integer("limit", MAX_LIMIT), MAX_LIMIT))
    offset = hooks.query_integer("offset", 0)
    if not 0 <= offset <= MAX_OFFSET:
        raise InvalidRequest(f"offset: must be between 0 and {MAX_OFFSET}.")
    order = request.args.get("order", "oldest")
    if order not in {"oldest", "newest"}:
        raise InvalidRequest("order: must be oldest or newest.")
    with engine_request() as (identity, _, waiter):
        engine = services.parts().engine
        page = (engine.newest if order == "newest" else engine.history)(identity, limit, offset, waiter)
    return jsonify(user_id=identity.user_id, entries=page.entries, total_count=page.total, limit=limit, offset=offset)
