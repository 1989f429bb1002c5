"""/api/ticket: for `EventSource`, which cannot say who it is in any other way."""

from flask import Blueprint, Response, jsonify

from bff.api import hooks, services
from bff.auth.tickets import OPEN_SECONDS

bp = Blueprint("tickets", __name__, url_prefix="/api")


@bp.post("/ticket")
def issue() -> tuple[Response, int]:
    return jsonify(ticket=services.parts().tickets.issue(hooks.identity()), expires_in=OPEN_SECONDS), 201
