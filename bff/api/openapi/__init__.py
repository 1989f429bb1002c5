"""/openapi.json: the HTTP API for tools. Each view describes itself with `@describe`; docs/protocol.md is for readers."""

import json

from flask import Blueprint, Flask, Response, current_app

from bff.api import hooks
from bff.api.openapi import parameters, responses
from bff.api.openapi.document import document
from bff.api.openapi.error_groups import (
    AUTH_ERRORS,
    BODY_ERRORS,
    LIMIT_ERRORS,
    PUBLIC_ERRORS,
    REPLY_ERRORS,
    STORE_ERRORS,
    UPSTREAM_ERRORS,
)
from bff.api.openapi.operation import Operation, Parameter, ResponseSpec, describe, operation_of
from bff.api.openapi.schemas import Passed
from bff.errors import InvalidRequest

__all__ = [
    "AUTH_ERRORS",
    "BODY_ERRORS",
    "LIMIT_ERRORS",
    "PUBLIC_ERRORS",
    "REPLY_ERRORS",
    "STORE_ERRORS",
    "UPSTREAM_ERRORS",
    "Parameter",
    "ResponseSpec",
    "describe",
    "document",
    "parameters",
    "responses",
    "routes",
]

bp = Blueprint("openapi", __name__)
hooks.add_hooks(bp, linkable=True)


@bp.get("/openapi.json")
@describe(
    "Get this document.",
    {200: ResponseSpec("The OpenAPI 3.1 document.", Passed)},
    (*PUBLIC_ERRORS, InvalidRequest),
    public=True,
)
def openapi() -> Response:
    """Built at the first request: the routes of an app do not change."""
    extensions = current_app.extensions
    if "openapi" not in extensions:
        extensions["openapi"] = json.dumps(document(routes(current_app)), separators=(",", ":"))
    return Response(extensions["openapi"], content_type="application/json")


def routes(app: Flask) -> dict[str, Operation | None]:
    """Every route, such as `GET /api/chat/stream/<message_id>`, with its description; None if its view has none.

    Leaves out HEAD, OPTIONS and the static files.
    """
    found = {
        f"{method} {rule.rule}": operation_of(app.view_functions[rule.endpoint])
        for rule in app.url_map.iter_rules()
        if not rule.endpoint.endswith(".static")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    return dict(sorted(found.items()))
