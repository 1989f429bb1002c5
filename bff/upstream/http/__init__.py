"""HTTP to the services behind us: the one door of `requests` and urllib3.

A session is shared by all users, `send` makes one request, `read_json` reads a bounded answer, a `ByteStream` is one that
is still open, an `EventSource` one of events. Every exception of the libraries becomes one of ours here: they are OSErrors,
which gunicorn would take for a browser that left.
"""

from requests import Response, Session

from bff.upstream.http.byte_stream import ByteStream
from bff.upstream.http.event_source import EventSource
from bff.upstream.http.in_process import InProcessService
from bff.upstream.http.requests import JSON_MAX_BYTES, read_json, read_url, retry_after, send
from bff.upstream.http.sessions import new_session, tls_context

__all__ = [
    "JSON_MAX_BYTES",
    "ByteStream",
    "EventSource",
    "InProcessService",
    "Response",
    "Session",
    "new_session",
    "read_json",
    "read_url",
    "retry_after",
    "send",
    "tls_context",
]
