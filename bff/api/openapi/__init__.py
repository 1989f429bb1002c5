"""/openapi.json: what can be asked here and what is answered, for tools. docs/protocol.md says it in words."""

import json
from functools import cache

from flask import Blueprint, Flask, Response, current_app

from bff.api import hooks
from bff.api.openapi.document import document

bp = Blueprint("contract", __name__)
hooks.add_hooks(bp)


@bp.get("/openapi.json")
def openapi() -> Response:
    return Response(_text(routes(current_app)), content_type="application/json")


def routes(app: Flask) -> tuple[str, ...]:
    """As `GET /api/chat/stream/<message_id>`. Of HEAD and OPTIONS there is nothing to say; the page's files are no API."""
    rules = [rule for rule in app.url_map.iter_rules() if not rule.endpoint.endswith(".static")]
    found = ((method, rule.rule) for rule in rules for method in rule.methods or ())
    return tuple(sorted(f"{method} {rule}" for method, rule in found if method not in {"HEAD", "OPTIONS"}))


@cache
def _text(routes: tuple[str, ...]) -> str:
    return json.dumps(document(routes), separators=(",", ":"))
