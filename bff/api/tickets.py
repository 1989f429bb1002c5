"""/api/ticket: short-lived tickets for `EventSource`, which cannot send an Authorization header."""

from flask import Blueprint, Response, jsonify

from bff.api import hooks, services
from bff.api.openapi import AUTH_ERRORS, ResponseSpec, describe
from bff.api.openapi.schemas import Ticket
from bff.auth.tickets import OPEN_SECONDS

bp = Blueprint("tickets", __name__, url_prefix="/api")
hooks.add_hooks(bp)


@bp.post("/ticket")
@describe(
    "Issue a ticket with which an EventSource can open one stream.",
    {201: ResponseSpec("The ticket.", Ticket)},
    AUTH_ERRORS,
)
def issue() -> tuple[Response, int]:
    return jsonify(ticket=services.parts().tickets.issue(hooks.identity()), expires_in=OPEN_SECONDS), 201
