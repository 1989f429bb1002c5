"""HTTP client for the upstream services; no other module imports `requests` or urllib3.

`send` makes one request on a session that all users share, `read_json` reads a bounded JSON response, `ByteStream` and
`EventSource` read an open response. All library exceptions are mapped to ours: they are OSErrors, which gunicorn would take
for a client disconnect.
"""

from requests import Response, Session

from bff.upstream.http.addresses import origin_of, problem_of
from bff.upstream.http.byte_stream import ByteStream
from bff.upstream.http.event_source import EventSource
from bff.upstream.http.in_process import InProcessService
from bff.upstream.http.proxy import Proxy
from bff.upstream.http.public_session import public_session_for
from bff.upstream.http.requests import JSON_MAX_BYTES, read_body, read_json, read_url, retry_after, send
from bff.upstream.http.sessions import new_session, session_for, tls_context

__all__ = [
    "JSON_MAX_BYTES",
    "ByteStream",
    "EventSource",
    "InProcessService",
    "Proxy",
    "Response",
    "Session",
    "new_session",
    "origin_of",
    "problem_of",
    "public_session_for",
    "read_body",
    "read_json",
    "read_url",
    "retry_after",
    "send",
    "session_for",
    "tls_context",
]
