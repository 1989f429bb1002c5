"""What every door has: a request id, who is asking, one shape for errors, one log line."""

import logging
import random
import re
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from bff import errors
from bff.api import origin, security_headers
from bff.api.services import parts
from bff.auth.identity import COOKIE, Identity
from bff.errors import ChatError, ClientDisconnected, InternalError, InvalidRequest
from bff.http import request_body, tracing, waiting
from bff.http.responses import HEADERS
from bff.http.streams import Slot
from bff.ops import metrics
from bff.ops.connections import SEND_BUFFER_BYTES

COOKIE_SECONDS: Final = 365 * 24 * 3600
ALIVE: Final = frozenset({"ops.healthz", "ops.readyz", "ops.numbers"})
"""What still answers while we drain."""
COME_BACK_MILLISECONDS: Final = (500, 3000)

log = logging.getLogger("bff.requests")


def request_id() -> str:
    return str(g.request_id)


def began() -> float:
    """The moment (monotonic) at which the request had come."""
    return float(g.began)


def identity() -> Identity:
    """Raises Unauthorized, Forbidden."""
    if "identity" not in g:
        g.identity = parts().authenticator.authenticate(request.headers, request.cookies)
    who: Identity = g.identity
    return who


def identity_of_reader() -> Identity:
    """Of a stream that `EventSource` may open: by the ticket in its query, else as at every door."""
    ticket = request.args.get("ticket", "")
    if ticket and "identity" not in g:
        redeemed = parts().tickets.redeem(ticket, request.path, comes_back="Last-Event-ID" in request.headers)
        g.identity = redeemed.identity
        g.unused_ticket = ticket if redeemed.first else ""
    return identity()


def body(most: int | None = None) -> bytes:
    """`most`: bytes, where that is fewer than MAX_BODY_BYTES."""
    settings = parts().settings
    return request_body.read(
        request.environ, min(most or settings.max_body_bytes, settings.max_body_bytes), settings.request_seconds
    )


def integer(name: str, default: int) -> int:
    """Of the query. Raises InvalidRequest."""
    text = request.args.get(name)
    if text is None:
        return default
    if not re.fullmatch("-?[0-9]{1,15}", text):
        raise InvalidRequest(f"{name}: must be a whole number.")
    return int(text)


def hold(slot: Slot) -> None:
    """Released with the response: a large one keeps it until its last byte is taken."""
    g.slot = slot


def large_response_key(identity: Identity) -> str:
    """Counts apart from the user's streams, as no user id holds a NUL: a paused player must not keep them from chatting."""
    return f"{identity.user_id}\0"


def guard(app: Flask) -> None:
    app.url_map.merge_slashes = False  # It redirects, to whatever host the request named.
    app.before_request(_begin)
    app.after_request(_finish)
    app.register_error_handler(Exception, _refuse)


def _log_line(status: int) -> None:
    """The request's one line; a stream writes its own, at its end."""
    fields: dict[str, Any] = g.get("log_fields", {})
    about = {"request_id": request_id(), "status": status, "ms": round((monotonic() - g.began) * 1000)}
    log.info("%s %s %d", request.method, request.path, status, extra=about | fields)


def _begin() -> Response | None:
    g.began = monotonic()
    g.request_id = tracing.begin(request.headers).request_id
    allowed = parts().settings.cors_allow_origins
    if origin.is_preflight(allowed):
        return Response(status=204)
    origin.check(allowed)
    if parts().streams.draining and request.endpoint not in ALIVE:
        raise errors.ServerRestarting
    return None


def _finish(response: Response) -> Response:
    response = _counted(response)
    response.headers["X-Request-ID"] = request_id()
    security_headers.set_security_headers(response)
    origin.add_cors_headers(response, parts().settings.cors_allow_origins)
    who: Identity | None = g.get("identity")
    if who is not None and who.new_cookie:
        response.set_cookie(
            COOKIE, who.new_cookie, max_age=COOKIE_SECONDS, httponly=True, samesite="Lax", secure=request.is_secure
        )
    if not response.is_streamed:
        if ticket := g.get("unused_ticket"):
            parts().tickets.release(ticket)
        _log_line(response.status_code)
    return response


def _counted(response: Response) -> Response:
    """A user's large responses are counted while they wait in memory for somebody to read them, as streams are."""
    slot: Slot | None = g.pop("slot", None)
    try:
        slot = slot or _slot_of_page(response)
    except ChatError as problem:
        return _refuse(problem)
    if slot is not None and _may_wait(response):
        response.call_on_close(slot.release)
    elif slot is not None:
        slot.release()
    return response


def _slot_of_page(response: Response) -> Slot | None:
    """Of what was asked for without a slot. Only what changes nothing can still be refused."""
    who: Identity | None = g.get("identity")
    streams = parts().streams
    if who is None or request.method != "GET" or streams.draining or not _may_wait(response):
        return None
    return streams.acquire(large_response_key(who))


def _may_wait(response: Response) -> bool:
    """Whether it may have to wait for its reader: smaller ones fit into the kernel's buffer."""
    if response.is_streamed or waiting.client_socket(request.environ) is None:
        return False
    return (response.calculate_content_length() or 0) > SEND_BUFFER_BYTES


def to_chat_error(error: Exception) -> ChatError:
    """What went wrong, as one of ours, and noted for the log line."""
    problem = _as_ours(error)
    metrics.REFUSED.labels(problem.code).inc()
    add_log_fields({"code": problem.code} | ({"detail": problem.detail} if problem.detail else {}))
    return problem


def add_log_fields(fields: Mapping[str, object]) -> None:
    """For the request's log line."""
    g.log_fields = g.get("log_fields", {}) | fields


def _refuse(error: Exception) -> Response:
    if isinstance(error, ClientDisconnected):
        return Response(status=ClientDisconnected.status)
    problem = to_chat_error(error)
    if problem.retry_after is not None and _is_event_source():
        return _come_back()
    response = jsonify(problem.as_json(request_id()))
    response.status_code = problem.status
    if problem.retry_after is not None:
        response.headers["Retry-After"] = str(problem.retry_after)
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    if problem.message_id:
        response.headers["Location"] = f"/api/chat/stream/{problem.message_id}"
    return response


def says_it_comes_back() -> bool:
    return request.headers.get("X-Chat-Resume") == "1"


def _is_event_source() -> bool:
    """Whether it comes back after a clean end, and after nothing else. Clients of other protocols take that for the end."""
    wants_events = request.method == "GET" and "text/event-stream" in request.accept_mimetypes.values()
    return wants_events and (request.args.get("protocol", "native") == "native" or says_it_comes_back())


def come_back_milliseconds() -> int:
    """Different for each reader, so that they do not all come back at once."""
    return random.randint(*COME_BACK_MILLISECONDS)  # noqa: S311 - jitter


def _come_back() -> Response:
    """`EventSource` gives up for good on anything but a 200: for what will pass it is told to come back."""
    return Response(f"retry: {come_back_milliseconds()}\n\n", content_type="text/event-stream; charset=utf-8", headers=HEADERS)


def _as_ours(error: Exception) -> ChatError:
    if isinstance(error, ChatError):
        return error
    if isinstance(error, HTTPException):
        request.routing_exception = None  # Raised by Flask, its traceback refers to the request.
        return errors.by_status(error.code)
    log.error("a door broke", exc_info=error, extra={"request_id": request_id()})
    return InternalError()
