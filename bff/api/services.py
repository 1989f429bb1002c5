"""The services that `create_app` builds and the blueprints use."""

from collections.abc import Mapping
from dataclasses import dataclass

from flask import current_app

from bff.api.conversation_replies import ReplyRuns
from bff.auth.identity import Authenticator
from bff.auth.tickets import Tickets
from bff.config.settings import Settings
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


@dataclass(frozen=True)
class Parts:
    """Stored as `app.extensions["chat_bff"]`."""

    settings: Settings
    authenticator: Authenticator
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
    store: ConversationStore
    runs: ReplyRuns
    lag: LagMonitor
    lifecycle: Lifecycle
    queue_sizes: QueueSizes
    """Of the bundled broker's queue."""


def parts() -> Parts:
    built: Parts = current_app.extensions["chat_bff"]
    return built
