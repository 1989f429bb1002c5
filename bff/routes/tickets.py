"""/api/ticket: for `EventSource`, which cannot say who it is in any other way."""

from flask import Blueprint, Response, jsonify

from bff.auth.tickets import OPEN_SECONDS
from bff.routes import door

bp = Blueprint("tickets", __name__, url_prefix="/api")


@bp.post("/ticket")
def issue() -> tuple[Response, int]:
    return jsonify(ticket=door.parts().tickets.issue(door.identity()), expires_in=OPEN_SECONDS), 201
