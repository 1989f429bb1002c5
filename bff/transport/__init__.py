"""HTTP to the services behind us: the one door of `requests` and urllib3.

A session is shared by all users, `send` makes one request, `read_json` reads a bounded answer, a `ByteSource` is one that
is still open, an `EventSource` one of events. Every exception of the libraries becomes one of ours here: they are OSErrors,
which gunicorn would take for a browser that left.
"""

from requests import Response, Session

from bff.transport.calls import JSON_MAX_BYTES, read_json, read_url, retry_after, send
from bff.transport.direct import Neighbour
from bff.transport.reading import ByteSource
from bff.transport.sessions import new_session, tls_context
from bff.transport.source import EventSource

__all__ = [
    "JSON_MAX_BYTES",
    "ByteSource",
    "EventSource",
    "Neighbour",
    "Response",
    "Session",
    "new_session",
    "read_json",
    "read_url",
    "retry_after",
    "send",
    "tls_context",
]
