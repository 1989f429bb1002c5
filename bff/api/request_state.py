"""What we know of the request in progress, in one attribute of Flask's `g`, which a host application uses as well."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic

from flask import g, request

from bff.auth.identity import Identity
from bff.http import tracing
from bff.http.streams import Slot


@dataclass(slots=True)
class RequestState:
    request_id: str
    started_at: float
    """The moment (monotonic) at which the request arrived."""
    identity: Identity | None = None
    """Once it is authenticated."""
    unused_ticket: str = ""
    """A ticket that this request was the first to redeem."""
    slot: Slot | None = None
    log_fields: dict[str, object] = field(default_factory=dict)


def begin() -> RequestState:
    """Replaces the state of an earlier request in the same app context, as in tests."""
    g.chat_bff = RequestState(tracing.begin(request.headers).request_id, monotonic())
    return current()


def current() -> RequestState:
    """Begins if our first hook did not run: a host application's hook that runs earlier may have raised an exception."""
    return get() or begin()


def get() -> RequestState | None:
    """None if the response is not ours, such as a host application's redirect to its login."""
    state: RequestState | None = g.get("chat_bff")
    return state


def request_id() -> str:
    return current().request_id


def started_at() -> float:
    return current().started_at


def add_log_fields(fields: Mapping[str, object]) -> None:
    """Adds `fields` to the request's log line."""
    current().log_fields.update(fields)
