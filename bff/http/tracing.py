"""Which request all this belongs to, from the browser to the engine: a request id, and a trace as tracing systems know it.

https://www.w3.org/TR/trace-context/: `traceparent` is taken in where it is valid and made where it is not; each hop is a
span of its own. We keep no spans: whoever does finds our part by the trace id, which is in every log line.
"""

import re
import secrets
from contextvars import ContextVar
from typing import Final, NamedTuple, Protocol

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
TRACEPARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?")
_KEPT: Final = re.compile(rf"([0-9a-f]{{32}}) ([0-9a-f]{{2}}) ({REQUEST_ID.pattern})")
SAMPLED: Final = "01"
"""Of a trace that begins here. Those behind us who follow the caller's choice would otherwise never keep one."""


class Fields(Protocol):
    """Headers or cookies: of a server, or a plain dict."""

    def get(self, key: str, default: str, /) -> str: ...


class Trace(NamedTuple):
    trace_id: str
    flags: str
    request_id: str


current: ContextVar[Trace | None] = ContextVar("trace", default=None)
"""Of the request that this greenlet or thread serves, until its next one: a stream outlives Flask's context, and its end
is logged after it."""


def begin(headers: Fields) -> Trace:
    """What the caller says, where it makes sense, and what we make up for the rest."""
    asked_for = headers.get("X-Request-ID", "")
    request_id = asked_for if REQUEST_ID.fullmatch(asked_for) else secrets.token_hex(16)
    said = TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    if said is None or (said[1] == "00" and said[4]):  # A later version may hold more; this one may not.
        trace = Trace(secrets.token_hex(16), SAMPLED, request_id)
    else:
        trace = Trace(said[2], said[3], request_id)
    current.set(trace)
    return trace


def kept() -> str:
    """As it is kept with a message, for whoever answers it."""
    return " ".join(current.get() or ())


def go_on(kept: str) -> None:
    """With the trace of a message that was left by somebody else, elsewhere, perhaps long ago."""
    said = _KEPT.fullmatch(kept)
    current.set(Trace(*said.groups()) if said else None)


def headers() -> dict[str, str]:
    """For a call to a service behind us, which is a span of its own."""
    if (trace := current.get()) is None:
        return {}
    traceparent = f"00-{trace.trace_id}-{secrets.token_hex(8)}-{trace.flags}"
    return {"traceparent": traceparent, "X-Request-ID": trace.request_id}


def fields() -> dict[str, str]:
    """For a log line."""
    trace = current.get()
    return {} if trace is None else {"request_id": trace.request_id, "trace_id": trace.trace_id}
