"""Hooks that all blueprints share: request id, identity, JSON errors, one log line per request."""

import logging
import random
import re
from collections.abc import Mapping
from functools import partial
from time import monotonic
from typing import Any, Final

from flask import Blueprint, Flask, Response, g, jsonify, request, url_for
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from bff import errors
from bff.api import cors, csrf, security_headers
from bff.api.adapters import openai
from bff.api.services import parts
from bff.auth.identity import COOKIE, Identity
from bff.errors import ChatError, ClientDisconnected, InternalError, InvalidRequest
from bff.http import request_body, tracing, waiting
from bff.http.responses import HEADERS
from bff.http.streams import Slot
from bff.ops import metrics
from bff.ops.connections import SEND_BUFFER_BYTES

COOKIE_SECONDS: Final = 365 * 24 * 3600
OPEN_WHILE_DRAINING: Final = frozenset({"ops.healthz", "ops.readyz", "ops.export_metrics"})
"""Endpoints that still answer during a drain."""
RETRY_MILLISECONDS: Final = (500, 3000)

log = logging.getLogger("bff.requests")


def add_hooks(bp: Blueprint, *, linkable: bool = False) -> None:
    """A blueprint may register an error handler of its own afterwards.

    `linkable`: pages of other sites may link to its GETs or embed them.
    """
    bp.before_request(partial(_before_request, linkable=linkable))
    bp.after_request(_after_request)
    bp.register_error_handler(Exception, _handle_error)


def add_app_hooks(app: Flask) -> None:
    """Covers requests that match no blueprint as well, such as those for unknown paths. For an app that is ours alone."""
    app.url_map.merge_slashes = False  # It redirects to whatever host the request named.
    app.before_request(lambda: None if request.blueprint else _before_request(linkable=True))
    app.after_request(lambda response: response if request.blueprint else _after_request(response))
    app.register_error_handler(Exception, _handle_error)


def request_id() -> str:
    return str(g.request_id)


def started_at() -> float:
    """The moment (monotonic) at which the request arrived."""
    return float(g.started_at)


def identity() -> Identity:
    """Raises Unauthorized, Forbidden."""
    if "identity" not in g:
        g.identity = parts().authenticator.authenticate(request.headers, request.cookies)
    authenticated: Identity = g.identity
    return authenticated


def identity_or_ticket() -> Identity:
    """Like `identity`, but accepts a ticket in the query, as `EventSource` cannot send headers. For streams."""
    ticket = request.args.get("ticket", "")
    if ticket and "identity" not in g:
        redeemed = parts().tickets.redeem(ticket, request.path, resumable="Last-Event-ID" in request.headers)
        g.identity = redeemed.identity
        g.unused_ticket = ticket if redeemed.first else ""
    return identity()


def body(max_bytes: int | None = None) -> bytes:
    """At most MAX_BODY_BYTES, or `max_bytes` where that is less. Raises what `request_body.read` raises."""
    settings = parts().settings
    limit = min(max_bytes or settings.max_body_bytes, settings.max_body_bytes)
    return request_body.read(request.environ, limit, settings.request_seconds)


def query_integer(name: str, default: int) -> int:
    """Raises InvalidRequest."""
    text = request.args.get(name)
    if text is None:
        return default
    if not re.fullmatch("-?[0-9]{1,15}", text):
        raise InvalidRequest(f"{name}: must be a whole number.")
    return int(text)


def release_with_response(slot: Slot) -> None:
    """Releases `slot` when the response is ready or, if it is large, once its last byte has been sent."""
    g.slot = slot


def large_response_key(identity: Identity) -> str:
    """The user id under which large responses are counted.

    They are counted apart from the user's streams, so that a paused audio player does not block the chat. No user id has a NUL.
    """
    return f"{identity.user_id}\0"


def add_log_fields(fields: Mapping[str, object]) -> None:
    """Adds `fields` to the request's log line."""
    g.log_fields = g.get("log_fields", {}) | fields


def to_chat_error(error: Exception) -> ChatError:
    """Maps any exception to a ChatError, counts it, and adds it to the request's log line."""
    chat_error = _map_error(error)
    metrics.REFUSED.labels(chat_error.code).inc()
    add_log_fields({"code": chat_error.code} | ({"detail": chat_error.detail} if chat_error.detail else {}))
    return chat_error


def client_resumes() -> bool:
    """Whether the client says that it reconnects after a stream that ends without a terminal event."""
    return request.headers.get("X-Chat-Resume") == "1"


def retry_milliseconds() -> int:
    """Random, so that clients do not all reconnect at once."""
    return random.randint(*RETRY_MILLISECONDS)  # noqa: S311 - jitter


def _before_request(*, linkable: bool) -> Response | None:
    g.started_at = monotonic()
    g.request_id = tracing.begin(request.headers).request_id
    settings = parts().settings
    if cors.is_preflight(settings.cors_allow_origins):
        return Response(status=204)
    csrf.check(settings, linkable=linkable)
    if parts().streams.draining and request.endpoint not in OPEN_WHILE_DRAINING:
        raise errors.ServerRestarting
    return None


def _after_request(response: Response) -> Response:
    response = _limit_large_response(response)
    response.headers["X-Request-ID"] = request_id()
    security_headers.set_security_headers(response)
    cors.add_cors_headers(response, parts().settings.cors_allow_origins)
    _set_identity_cookie(response)
    if not response.is_streamed:
        if ticket := g.get("unused_ticket"):
            parts().tickets.release(ticket)
        _log_request(response.status_code)
    return response


def _set_identity_cookie(response: Response) -> None:
    authenticated: Identity | None = g.get("identity")
    if authenticated is not None and authenticated.new_cookie:
        response.set_cookie(
            COOKIE, authenticated.new_cookie, max_age=COOKIE_SECONDS, httponly=True, samesite="Lax", secure=request.is_secure
        )


def _log_request(status: int) -> None:
    """Streams log a line of their own when they end."""
    fields = {"request_id": request_id(), "status": status, "ms": round((monotonic() - started_at()) * 1000)}
    more: dict[str, Any] = g.get("log_fields", {})
    log.info("%s %s %d", request.method, request.path, status, extra=fields | more)


def _limit_large_response(response: Response) -> Response:
    """Large responses take up memory until the client has read them: like streams, they are limited per user."""
    slot: Slot | None = g.pop("slot", None)
    try:
        slot = slot or _slot_for_large_response(response)
    except ChatError as error:
        return _handle_error(error)
    if slot is not None and _is_large(response):
        response.call_on_close(slot.release)
    elif slot is not None:
        slot.release()
    return response


def _slot_for_large_response(response: Response) -> Slot | None:
    """For requests that hold none. Only a GET is refused at this point, as it has changed nothing."""
    authenticated: Identity | None = g.get("identity")
    streams = parts().streams
    if authenticated is None or request.method != "GET" or streams.draining or not _is_large(response):
        return None
    return streams.acquire(large_response_key(authenticated))


def _is_large(response: Response) -> bool:
    """Whether it may not fit into the kernel's send buffer, so that it waits for its client."""
    if response.is_streamed or waiting.client_socket(request.environ) is None:
        return False
    return (response.calculate_content_length() or 0) > SEND_BUFFER_BYTES


def _handle_error(error: Exception) -> Response:
    if isinstance(error, ClientDisconnected):
        return Response(status=ClientDisconnected.status)
    chat_error = to_chat_error(error)
    if chat_error.retry_after is not None and _is_event_source() and not _is_openai():
        return _retry_response()
    response = jsonify(openai.error(chat_error) if _is_openai() else chat_error.as_json(request_id()))
    response.status_code = chat_error.status
    if chat_error.retry_after is not None:
        response.headers["Retry-After"] = str(chat_error.retry_after)
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    if chat_error.message_id:
        response.headers["Location"] = url_for("chat.resume", message_id=chat_error.message_id)
    return response


def _map_error(error: Exception) -> ChatError:
    if isinstance(error, ChatError):
        return error
    if isinstance(error, HTTPException):
        request.routing_exception = None  # Its traceback refers to the request: that would be a reference cycle.
        return errors.error_for_status(error.code)
    log.error("unhandled exception", exc_info=error, extra={"request_id": request_id()})
    return InternalError()


def _is_openai() -> bool:
    """Whether the client is one of OpenAI's, on a route that exists or not."""
    return request.path == "/v1" or request.path.startswith("/v1/")


def _is_event_source() -> bool:
    """Whether the client reconnects after a clean end of the stream only. Clients of other protocols take that for the end."""
    wants_events = request.method == "GET" and "text/event-stream" in request.accept_mimetypes.values()
    return wants_events and (request.args.get("protocol", "native") == "native" or client_resumes())


def _retry_response() -> Response:
    """For temporary errors: `EventSource` never reconnects after a status other than 200."""
    return Response(f"retry: {retry_milliseconds()}\n\n", content_type="text/event-stream; charset=utf-8", headers=HEADERS)
