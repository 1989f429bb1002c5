"""/api/chat/history: the user's turns of direct chat, a page at a time."""

from typing import Final

from flask import Blueprint, Response, jsonify, request

from bff.api import hooks, services
from bff.api.engine_request import engine_request
from bff.api.openapi import AUTH_ERRORS, LIMIT_ERRORS, UPSTREAM_ERRORS, Parameter, ResponseSpec, describe
from bff.api.openapi.schemas import History
from bff.errors import InvalidRequest

bp = Blueprint("history", __name__, url_prefix="/api/chat/history")
hooks.add_hooks(bp)

MAX_LIMIT: Final = 50
MAX_OFFSET: Final = 10**9


@bp.get("")
@describe(
    "List the user's earlier messages and replies.",
    {200: ResponseSpec("A page of them.", History)},
    (*AUTH_ERRORS, *LIMIT_ERRORS, *UPSTREAM_ERRORS),
    parameters=(
        Parameter("limit", {"type": "integer"}, "Clamped to the range from 1 to 50."),
        Parameter("offset", {"type": "integer", "minimum": 0, "maximum": MAX_OFFSET}),
        Parameter("order", {"enum": ["oldest", "newest"]}, "newest: the latest turn first; offset counts from the end."),
    ),
)
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
