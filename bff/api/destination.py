"""Where a new message of direct chat goes: to which broker, by when, and with which options."""

from typing import Any, Final, NamedTuple

from bff.api import services
from bff.config.settings import Settings
from bff.errors import UpstreamFailure, UpstreamTimeout
from bff.upstream.broker_client import BrokerClient
from bff.upstream.messages import ChatRequest

EXTERNAL_EXTRA_SECONDS: Final = 1.0
"""The bundled broker waits for an external one as long as we wait for a broker. This lets it report the timeout first."""


class Destination(NamedTuple):
    """The broker for a new message of direct chat."""

    broker: BrokerClient
    deadline: float
    """The moment (monotonic) by which the message is enqueued and its stream open."""
    content: dict[str, str]
    """Further fields of the message."""


def choose_destination(user_id: str) -> Destination:
    """The configured broker, or our own one in front of it if it does not number its events, so that they can be resumed.

    Raises UpstreamTimeout if a busy broker does not say which it is.
    """
    parts = services.parts()
    deadline = parts.broker.open_deadline()
    try:
        if parts.broker.numbers_events(user_id):
            return Destination(parts.broker, deadline, {})
    except UpstreamTimeout:
        raise
    except UpstreamFailure:
        pass  # Enqueueing will show whether the broker is available.
    return Destination(parts.own_broker, parts.own_broker.open_deadline() + EXTERNAL_EXTRA_SECONDS, {"handler": "external"})


def enqueue_content(message: ChatRequest, settings: Settings) -> dict[str, Any]:
    """What the broker gets. Options that only our own broker knows are left out where they have their default values."""
    defaults = {"on_busy": settings.on_busy, "on_disconnect": settings.on_disconnect}
    options = {name: value for name, value in defaults.items() if value not in {"enqueue", "continue"}}
    requested = {"on_busy": message.on_busy, "client_message_id": message.client_message_id}
    return message.for_upstream() | options | {name: value for name, value in requested.items() if value}
