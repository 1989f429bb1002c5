"""The parts that `ChatBFF` builds for its blueprints. An app may have several instances of it, each below a URL prefix."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask import current_app, request
from flask import url_for as flask_url_for

from bff.api.conversation_replies import ReplyRuns
from bff.auth.identity import Authenticator
from bff.auth.tickets import Tickets
from bff.config.settings import Settings
from bff.db.responses import ResponseStore
from bff.db.store import ConversationStore
from bff.http.streams import StreamLimiter
from bff.ops.health import Health
from bff.ops.lag import LagMonitor
from bff.ops.lifecycle import Lifecycle
from bff.ops.metrics import QueueSizes
from bff.ops.rate_limiter import RateLimiter
from bff.upstream.agents import AgentInfo
from bff.upstream.broker_client import BrokerClient
from bff.upstream.engine_client import EngineClient

DEFAULT_NAME: Final = "chat_bff"


@dataclass(frozen=True)
class Parts:
    """Stored in `app.extensions` under the instance's name."""

    name: str
    url_prefix: str
    """Such as `/assistant`, without the path that the app itself is mounted at; "" for none."""
    settings: Settings
    authenticator: Authenticator
    is_host_authenticated: bool
    """Whether the authenticator is the host application's, and not the one of AUTH_MODE."""
    broker: BrokerClient
    """Receives direct chat: the configured broker, else the bundled one."""
    own_broker: BrokerClient
    """The bundled broker, which runs the replies in conversations."""
    streams: StreamLimiter
    rate: RateLimiter
    health: Health
    engine: EngineClient
    tickets: Tickets
    agents: Mapping[str, AgentInfo]
    direct_agent_id: str
    """The agent of direct chat: the one that forwards to the configured broker or engine, if there is any."""
    store: ConversationStore
    responses: ResponseStore
    runs: ReplyRuns
    lag: LagMonitor
    lifecycle: Lifecycle
    queue_sizes: QueueSizes
    """Of the bundled broker's queue."""


def instance_name() -> str:
    """The name of the instance that serves the request: its blueprint contains all others."""
    name, _, is_in_blueprint = (request.endpoint or "").partition(".")
    return name if is_in_blueprint else DEFAULT_NAME


def parts() -> Parts:
    built: Parts = current_app.extensions[instance_name()]
    return built


def endpoint() -> str:
    """The request's endpoint within the instance, such as `chat.resume`; "" if no route matches."""
    return (request.endpoint or "").removeprefix(f"{instance_name()}.")


def path() -> str:
    """The request's path below the instance's prefix."""
    return request.path.removeprefix(parts().url_prefix)


def root_path() -> str:
    """The path that all URLs of the instance begin with, without a slash at its end."""
    return request.script_root + parts().url_prefix


def url_for(endpoint: str, **values: Any) -> str:
    """Like Flask's, with an endpoint within the instance."""
    return flask_url_for(f"{instance_name()}.{endpoint}", **values)
