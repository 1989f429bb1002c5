"""Hooks that all blueprints share: request id, identity, JSON errors, one log line per request."""

import logging
import re
from functools import partial
from time import monotonic
from typing import Final

from flask import Blueprint, Flask, Response, request

from bff import errors
from bff.api import cors, csrf, error_responses, request_state, security_headers, services
from bff.api.services import parts
from bff.auth.identity import COOKIE, Identity
from bff.errors import ChatError, InvalidRequest
from bff.http import request_body, responses, waiting
from bff.http.streams import Slot
from bff.ops.connections import SEND_BUFFER_BYTES

COOKIE_SECONDS: Final = 365 * 24 * 3600
OPEN_WHILE_DRAINING: Final = frozenset({"ops.healthz", "ops.readyz", "ops.export_metrics"})
"""Endpoints that still answer during a drain."""

log = logging.getLogger("bff.requests")


def add_hooks(bp: Blueprint, *, linkable: bool = False) -> None:
    """A blueprint may register an error handler of its own afterwards.

    `linkable`: pages of other sites may link to its GETs or embed them.
    """
    bp.before_request(partial(_before_request, linkable=linkable))
    bp.after_request(_after_request)
    bp.register_error_handler(Exception, error_responses.handle)


def add_app_hooks(app: Flask) -> None:
    """Covers requests that match no blueprint as well, such as those for unknown paths. For an app that is ours alone."""
    app.url_map.merge_slashes = False  # It redirects to whatever host the request named.
    app.before_request(lambda: None if request.blueprint else _before_request(linkable=True))
    app.after_request(lambda response: response if request.blueprint else _after_request(response))
    app.register_error_handler(Exception, error_responses.handle)


def identity() -> Identity:
    """Raises Unauthorized, Forbidden."""
    state = request_state.current()
    if state.identity is None:
        state.identity = parts().authenticator.authenticate(request.headers, request.cookies)
    return state.identity


def identity_or_ticket() -> Identity:
    """Like `identity`, but accepts a ticket in the query, as `EventSource` cannot send headers. For streams."""
    state, ticket = request_state.current(), request.args.get("ticket", "")
    if ticket and state.identity is None:
        redeemed = parts().tickets.redeem(ticket, request.path, resumable="Last-Event-ID" in request.headers)
        state.identity = redeemed.identity
        state.unused_ticket = ticket if redeemed.first else ""
    return identity()


def body(max_bytes: int | None = None, *, allow_text: bool = False) -> bytes:
    """At most MAX_BODY_BYTES, or `max_bytes` where that is less. Raises what `request_body.read` raises.

    `allow_text`: JSON may be declared as text/plain where no page of another origin can have sent it.
    """
    allow_text = allow_text and csrf.is_own_request()
    settings = parts().settings
    limit = min(max_bytes or settings.max_body_bytes, settings.max_body_bytes)
    return request_body.read(request.environ, limit, settings.request_seconds, allow_text=allow_text)


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
    request_state.current().slot = slot


def large_response_key(identity: Identity) -> str:
    """The user id under which large responses are counted.

    They are counted apart from the user's streams, so that a paused audio player does not block the chat. No user id has a NUL.
    """
    return f"{identity.user_id}\0"


def revalidated(response: Response) -> Response:
    """Adds an ETag of the body; caches must ask before each use. Becomes a 304 if the client's copy has that ETag."""
    response.add_etag()
    response.cache_control.no_cache = True
    response.make_conditional(request)
    return response


def _before_request(*, linkable: bool) -> Response | None:
    request_state.begin()
    built = parts()
    if cors.is_preflight(built.settings.cors_allow_origins):
        return Response(status=204)
    csrf.check(built, linkable=linkable)
    if built.streams.draining and services.endpoint() not in OPEN_WHILE_DRAINING:
        raise errors.ServerRestarting
    return None


def _after_request(response: Response) -> Response:
    state = request_state.get()
    if state is None:
        return response
    response = responses.without_empty_type(_limit_large_response(response))
    response.headers["X-Request-ID"] = state.request_id
    security_headers.set_security_headers(response)
    cors.add_cors_headers(response, parts().settings.cors_allow_origins)
    _set_identity_cookie(response)
    if not response.is_streamed:
        if state.unused_ticket:
            parts().tickets.release(state.unused_ticket)
        _log_request(response.status_code)
    return response


def _set_identity_cookie(response: Response) -> None:
    authenticated = request_state.current().identity
    if authenticated is not None and authenticated.new_cookie:
        response.set_cookie(
            COOKIE,
            authenticated.new_cookie,
            max_age=COOKIE_SECONDS,
            path=services.root_path() or "/",
            httponly=True,
            samesite="Lax",
            secure=request.is_secure,
        )


def _log_request(status: int) -> None:
    """Streams log a line of their own when they end."""
    state = request_state.current()
    fields = {"request_id": state.request_id, "status": status, "ms": round((monotonic() - state.started_at) * 1000)}
    log.info("%s %s %d", request.method, request.path, status, extra=fields | state.log_fields)


def _limit_large_response(response: Response) -> Response:
    """Large responses take up memory until the client has read them: like streams, they are limited per user."""
    state = request_state.current()
    slot, state.slot = state.slot, None
    try:
        slot = slot or _slot_for_large_response(response)
    except ChatError as error:
        return error_responses.handle(error)
    if slot is not None and _is_large(response):
        response.call_on_close(slot.release)
    elif slot is not None:
        slot.release()
    return response


def _slot_for_large_response(response: Response) -> Slot | None:
    """For requests that hold none. Only a GET is refused at this point, as it has changed nothing."""
    authenticated, streams = request_state.current().identity, parts().streams
    if authenticated is None or request.method != "GET" or streams.draining or not _is_large(response):
        return None
    return streams.acquire(large_response_key(authenticated))


def _is_large(response: Response) -> bool:
    """Whether it may not fit into the kernel's send buffer, so that it waits for its client."""
    if response.is_streamed or waiting.client_socket(request.environ) is None:
        return False
    return (response.calculate_content_length() or 0) > SEND_BUFFER_BYTES
