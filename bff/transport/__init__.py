"""HTTP to the services behind us: the one door of `requests` and urllib3.

A session is shared by all users, `send` makes one request, `read_json` reads a bounded answer, an `EventSource` is one
open stream of events. Every exception of the libraries becomes one of ours here: they are OSErrors, which gunicorn would
take for a browser that left.
"""

from bff.transport.calls import read_json, retry_after, send
from bff.transport.sessions import new_session, tls_context
from bff.transport.source import EventSource

__all__ = ["EventSource", "new_session", "read_json", "retry_after", "send", "tls_context"]
