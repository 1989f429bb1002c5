"""/healthz: is the process alive? /readyz: may it get traffic?"""

from flask import Blueprint, Response, jsonify

from bff.routes import door

bp = Blueprint("ops", __name__)


@bp.get("/readyz")
def readyz() -> tuple[Response, int]:
    draining = door.parts().streams.draining
    return jsonify(status="draining" if draining else "ready"), 503 if draining else 200


@bp.get("/healthz")
def healthz() -> Response:
    return jsonify(status="ok")
