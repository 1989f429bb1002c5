"""What the engine's blueprints share: components, the key check, the log line and the shape of errors."""

import hmac
import logging
from typing import Annotated, Final, NamedTuple
from urllib.parse import quote

from flask import Response, current_app, jsonify, request
from pydantic import StrictStr, StringConstraints
from werkzeug.exceptions import HTTPException

from bff.auth.identity import Identity
from bff.engine.turns import Turns
from bff.errors import ChatError, ClientDisconnected, InternalError, Unauthorized, error_for_status
from bff.http import request_body, tracing

log = logging.getLogger("bff.engine")

MAX_ID_CHARACTERS: Final = 1024
Id = Annotated[StrictStr, StringConstraints(min_length=1, max_length=MAX_ID_CHARACTERS)]


class Parts(NamedTuple):
    key: str
    max_body_bytes: int
    request_seconds: float
    keepalive_seconds: float
    turns: Turns

    def __repr__(self) -> str:
        return "Parts(…)"  # Hides the key.


def parts() -> Parts:
    found: Parts = current_app.extensions["chat_bff"]
    return found


def body() -> bytes:
    return request_body.read(request.environ, parts().max_body_bytes, parts().request_seconds)


def check_key() -> None:
    tracing.begin(request.headers)
    authorization = request.headers.get("Authorization", "").encode("utf-8", "replace")
    if not hmac.compare_digest(authorization, f"Bearer {parts().key}".encode()):
        raise Unauthorized("The bearer key is missing or wrong.")


def log_response(response: Response) -> Response:
    log.info("the engine answered %d", response.status_code, extra={"endpoint": request.endpoint})
    return response


def audio_url_prefix(identity: Identity) -> str:
    """The common prefix of the URLs of this user's spoken replies, with the host that the caller used."""
    return f"{request.url_root}api/v1/audio/replies/{quote(identity.org, safe='')}/{quote(identity.user_id, safe='')}/"


def error_response(error: Exception) -> Response:
    if isinstance(error, ClientDisconnected):
        return Response(status=ClientDisconnected.status)
    if isinstance(error, HTTPException):
        request.routing_exception = None  # Breaks a reference cycle: its traceback refers to the request.
        error = error_for_status(error.code)
    if not isinstance(error, ChatError):
        log.error("unexpected error in the engine", exc_info=error)
        error = InternalError()
    log_failure(error)
    response = jsonify(error=str(error), code=error.code)
    response.status_code = error.status
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def log_failure(error: ChatError) -> None:
    """Logs the detail of a failure, which callers do not get."""
    if error.detail:
        log.warning("the reply failed: %s (%s)", error.code, error.detail)
