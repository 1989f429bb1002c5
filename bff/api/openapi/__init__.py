"""/openapi.json: the HTTP API for tools. Each view describes itself with `@describe`; docs/protocol.md is for readers."""

import json

from flask import Blueprint, Flask, Response, current_app

from bff.api import hooks, services
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
from bff.api.services import DEFAULT_NAME
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
    {200: ResponseSpec("The OpenAPI 3.1 document.", Passed), 304: responses.NOT_MODIFIED},
    (*PUBLIC_ERRORS, InvalidRequest),
    public=True,
)
def openapi() -> Response:
    """Built at the first request and when the root path changes: the routes of an app do not change."""
    parts, root = services.parts(), services.root_path() or "/"
    cached = current_app.extensions.get(f"{parts.name}.openapi")
    if cached is None or cached[0] != root:
        found = document(routes(current_app, parts.name, parts.url_prefix), root)
        cached = current_app.extensions[f"{parts.name}.openapi"] = root, json.dumps(found, separators=(",", ":"))
    return hooks.revalidated(Response(cached[1], content_type="application/json"))


def routes(app: Flask, name: str = DEFAULT_NAME, url_prefix: str = "") -> dict[str, Operation | None]:
    """An instance's routes, such as `GET /api/chat/stream/<message_id>`, with their descriptions; None if a view has none.

    Leaves out HEAD, OPTIONS and the static files.
    """
    found = {
        f"{method} {rule.rule.removeprefix(url_prefix)}": operation_of(app.view_functions[rule.endpoint])
        for rule in app.url_map.iter_rules()
        if rule.endpoint.startswith(f"{name}.") and not rule.endpoint.endswith(".static")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    return dict(sorted(found.items()))
