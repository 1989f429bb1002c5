"""Request ids and W3C trace context (https://www.w3.org/TR/trace-context/), passed on from the browser to the engine.

A valid `traceparent` is continued, otherwise a new trace starts; each hop is a span of its own. We record no spans: a tracing
system finds our part by the trace id, which is in every log line.
"""

import re
import secrets
from contextvars import ContextVar
from typing import Final, NamedTuple, Protocol

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
TRACEPARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?")
_SERIALIZED: Final = re.compile(rf"([0-9a-f]{{32}}) ([0-9a-f]{{2}}) ({REQUEST_ID.pattern})")
SAMPLED: Final = "01"
"""Flags of a trace that starts here: an upstream that follows its caller's sampling decision would otherwise record none."""


class Fields(Protocol):
    """Headers or cookies: Werkzeug's, or a plain dict."""

    def get(self, key: str, default: str, /) -> str: ...


class Trace(NamedTuple):
    trace_id: str
    flags: str
    request_id: str


current: ContextVar[Trace | None] = ContextVar("trace", default=None)
"""The trace of the request that this greenlet or thread serves. It is not reset at the end of the request: a stream outlives
Flask's context, and its end is logged after that."""


def begin(headers: Fields) -> Trace:
    """Starts a request's trace with the caller's ids where they are valid, and new ones where they are not."""
    request_id = headers.get("X-Request-ID", "")
    if not REQUEST_ID.fullmatch(request_id):
        request_id = secrets.token_hex(16)
    parent = TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    if parent is None or (parent[1] == "00" and parent[4]):  # Only versions after 00 may have more fields.
        trace = Trace(secrets.token_hex(16), SAMPLED, request_id)
    else:
        trace = Trace(parent[2], parent[3], request_id)
    current.set(trace)
    return trace


def inject() -> str:
    """The current trace as a string, to be stored with a message; "" if there is none."""
    return " ".join(current.get() or ())


def extract(serialized: str) -> None:
    """Continues the trace that was stored with a message, perhaps by another process."""
    match = _SERIALIZED.fullmatch(serialized)
    current.set(Trace(*match.groups()) if match else None)


def headers() -> dict[str, str]:
    """For a request to an upstream, which gets a span of its own."""
    if (trace := current.get()) is None:
        return {}
    traceparent = f"00-{trace.trace_id}-{secrets.token_hex(8)}-{trace.flags}"
    return {"traceparent": traceparent, "X-Request-ID": trace.request_id}


def fields() -> dict[str, str]:
    """For a log line."""
    trace = current.get()
    return {} if trace is None else {"request_id": trace.request_id, "trace_id": trace.trace_id}
