"""/api/preferences: the user's preferences for replies, which the engine stores."""

from typing import Annotated

from flask import Blueprint, Response, jsonify
from pydantic import BaseModel, Field, StrictStr, StringConstraints

from bff.api import hooks, services
from bff.api.engine_request import engine_request
from bff.api.openapi import AUTH_ERRORS, BODY_ERRORS, LIMIT_ERRORS, UPSTREAM_ERRORS, ResponseSpec, describe
from bff.api.openapi.schemas import Preferences
from bff.http import request_body

bp = Blueprint("preferences", __name__, url_prefix="/api/preferences")
hooks.add_hooks(bp)


class Changes(BaseModel):
    """Preferences that are left out stay as they are. Unknown keys are ignored."""

    response_language: Annotated[StrictStr, StringConstraints(pattern=r"^[a-z]{2}$")] = Field(default_factory=str)
    """The default marks the field as optional; a factory's result is not in the schema, whose pattern it would not match."""


@bp.get("")
@describe(
    "Get the user's preferences for replies.",
    {200: ResponseSpec("All preferences.", Preferences)},
    (*AUTH_ERRORS, *LIMIT_ERRORS, *UPSTREAM_ERRORS),
)
def read() -> Response:
    with engine_request() as (identity, _, waiter):
        return jsonify(services.parts().engine.preferences(identity, waiter))


@bp.put("")
@describe(
    "Change preferences. Fields that are missing stay unchanged.",
    {200: ResponseSpec("All preferences, after the change.", Preferences)},
    (*AUTH_ERRORS, *BODY_ERRORS, *LIMIT_ERRORS, *UPSTREAM_ERRORS),
    bodies=(Changes,),
)
def update() -> Response:
    hooks.identity()
    changes = request_body.parse(Changes, hooks.body()).model_dump(exclude_unset=True)
    with engine_request() as (identity, _, waiter):
        return jsonify(services.parts().engine.update_preferences(identity, changes, waiter))
