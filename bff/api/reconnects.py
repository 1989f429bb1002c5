"""How clients reconnect: which of them do so by themselves, and when."""

import random
from typing import Final

from flask import Response, request

from bff.http.responses import HEADERS

RETRY_MILLISECONDS: Final = (500, 3000)


def client_resumes() -> bool:
    """Whether the client says that it reconnects after a stream that ends without a terminal event."""
    return request.headers.get("X-Chat-Resume") == "1"


def is_event_source() -> bool:
    """Whether the client reconnects after a clean end of the stream only. Clients of other protocols take that for the end."""
    wants_events = request.method == "GET" and "text/event-stream" in request.accept_mimetypes.values()
    return wants_events and (request.args.get("protocol", "native") == "native" or client_resumes())


def is_tanstack_resume() -> bool:
    """Whether a TanStack AI client resumes a run, which it gives up after any status other than 200."""
    return "Last-Event-ID" in request.headers and ("X-Run-Id" in request.headers or "runId" in request.args)


def truncated_response() -> Response:
    """For TanStack AI: it reconnects after a stream that ends within a line."""
    return Response(": please reconnect", content_type="text/event-stream; charset=utf-8", headers=HEADERS)


def retry_milliseconds() -> int:
    """Random, so that clients do not all reconnect at once."""
    return random.randint(*RETRY_MILLISECONDS)  # noqa: S311 - jitter


def retry_response() -> Response:
    """For temporary errors: `EventSource` never reconnects after a status other than 200."""
    return Response(f"retry: {retry_milliseconds()}\n\n", content_type="text/event-stream; charset=utf-8", headers=HEADERS)
