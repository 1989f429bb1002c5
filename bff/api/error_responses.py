"""Exceptions as responses: JSON in our shape or OpenAI's, or an event stream that makes `EventSource` reconnect."""

import logging

from flask import Response, jsonify, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from bff import errors
from bff.api import reconnects, request_state, services
from bff.api.adapters import openai
from bff.errors import ChatError, ClientDisconnected, InternalError
from bff.ops import metrics

log = logging.getLogger(__name__)


def handle(error: Exception) -> Response:
    if isinstance(error, ClientDisconnected):
        return Response(status=ClientDisconnected.status)
    chat_error = to_chat_error(error)
    if chat_error.retry_after is not None and reconnects.is_event_source() and not _is_openai():
        return reconnects.retry_response()
    if chat_error.retry_after is not None and reconnects.is_tanstack_resume():
        return reconnects.truncated_response()
    as_json = openai.error(chat_error) if _is_openai() else chat_error.as_json(request_state.request_id())
    response = jsonify(as_json)
    response.status_code = chat_error.status
    if chat_error.retry_after is not None:
        response.headers["Retry-After"] = str(chat_error.retry_after)
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    if chat_error.message_id:
        response.headers["Location"] = services.url_for("chat.resume", message_id=chat_error.message_id)
    return response


def to_chat_error(error: Exception) -> ChatError:
    """Maps any exception to a ChatError, counts it, and adds it to the request's log line."""
    chat_error = _map(error)
    metrics.REFUSED.labels(chat_error.code).inc()
    request_state.add_log_fields({"code": chat_error.code} | ({"detail": chat_error.detail} if chat_error.detail else {}))
    return chat_error


def _map(error: Exception) -> ChatError:
    if isinstance(error, ChatError):
        return error
    if isinstance(error, HTTPException):
        request.routing_exception = None  # Its traceback refers to the request: that would be a reference cycle.
        return errors.error_for_status(error.code)
    log.error("unhandled exception", exc_info=error, extra={"request_id": request_state.request_id()})
    return InternalError()


def _is_openai() -> bool:
    """Whether the client is one of OpenAI's, on a route that exists or not."""
    return f"{services.path()}/".startswith("/v1/")
