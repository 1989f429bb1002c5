"""/healthz: is the process alive? /readyz: may it get traffic?"""

from flask import Blueprint, Response, jsonify

from bff.routes import door

bp = Blueprint("ops", __name__)


@bp.get("/readyz")
def readyz() -> tuple[Response, int]:
    parts = door.parts()
    if parts.streams.draining:
        return jsonify(status="draining"), 503
    states = parts.health.states()
    ready = all(state == "ok" for state in states.values())
    return jsonify(status="ready" if ready else "unready", **states), 200 if ready else 503


@bp.get("/healthz")
def healthz() -> Response:
    return jsonify(status="ok")
