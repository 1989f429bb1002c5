"""What every door of the engine has: its parts, the key that callers show, one shape for errors."""

import hmac
import logging
from typing import Annotated, Final, NamedTuple
from urllib.parse import quote

from flask import Response, current_app, jsonify, request
from pydantic import StrictStr, StringConstraints
from werkzeug.exceptions import HTTPException

from bff.auth.identity import Identity
from bff.engine.turns import Turns
from bff.errors import ChatError, ClientDisconnected, InternalError, Unauthorized, by_status
from bff.http import request_body, tracing

log = logging.getLogger("bff.engine")

ID_MAX: Final = 1024
Id = Annotated[StrictStr, StringConstraints(min_length=1, max_length=ID_MAX)]


class Parts(NamedTuple):
    key: str
    max_body_bytes: int
    request_seconds: float
    turns: Turns

    def __repr__(self) -> str:
        return "Parts(…)"  # The key is one of them.


def parts() -> Parts:
    built: Parts = current_app.extensions["chat_bff"]
    return built


def body() -> bytes:
    return request_body.read(request.environ, parts().max_body_bytes, parts().request_seconds)


def check_key() -> None:
    tracing.begin(request.headers)
    shown = request.headers.get("Authorization", "").encode("utf-8", "replace")
    if not hmac.compare_digest(shown, f"Bearer {parts().key}".encode()):
        raise Unauthorized("The bearer key is missing or wrong.")


def tell(response: Response) -> Response:
    log.info("the engine answered %d", response.status_code, extra={"asked": request.endpoint})
    return response


def audio_urls(who: Identity) -> str:
    """What the URLs of this user's spoken answers begin with: the address by which the caller knows us."""
    return f"{request.url_root}api/v1/audio/replies/{quote(who.org, safe='')}/{quote(who.user_id, safe='')}/"


def refuse(error: Exception) -> Response:
    if isinstance(error, ClientDisconnected):
        return Response(status=ClientDisconnected.status)
    if isinstance(error, HTTPException):
        request.routing_exception = None  # Raised by Flask, its traceback refers to the request.
        error = by_status(error.code)
    if not isinstance(error, ChatError):
        log.error("the engine stumbled", exc_info=error)
        error = InternalError()
    response = jsonify(error=str(error), code=error.code)
    response.status_code = error.status
    return response
