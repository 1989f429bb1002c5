"""/api/preferences: how this user wants to be answered."""

from typing import Annotated

from flask import Blueprint, Response, jsonify
from pydantic import BaseModel, StrictStr, StringConstraints

from bff.api import hooks, services
from bff.api.engine_request import engine_request
from bff.http import request_body

bp = Blueprint("preferences", __name__, url_prefix="/api/preferences")


class Changes(BaseModel):
    """What is not in it stays as it is. Keys it does not name are ignored."""

    response_language: Annotated[StrictStr, StringConstraints(pattern=r"^[a-z]{2}$")] = ""
    """The default is told from a value by its absence: nobody can ask for it."""


@bp.get("")
def read() -> Response:
    with engine_request() as (who, _, waiter):
        return jsonify(services.parts().engine.preferences(who, waiter))


@bp.put("")
def change() -> Response:
    hooks.identity()
    changes = request_body.validated(Changes, hooks.body()).model_dump(exclude_unset=True)
    with engine_request() as (who, _, waiter):
        return jsonify(services.parts().engine.prefer(who, changes, waiter))
