"""Builds every component of an instance once, from its settings."""

from functools import partial
from typing import TYPE_CHECKING

from bff.api.auth_modes import create_authenticator
from bff.api.conversation_replies import ReplyRuns
from bff.api.services import Parts
from bff.auth.tickets import Tickets
from bff.broker.app import bundled_broker
from bff.config.settings import Settings
from bff.db.replies import Replies
from bff.db.responses import ResponseStore
from bff.db.store import ConversationStore
from bff.engine.agents.registry import DEFAULT_AGENT
from bff.http.streams import StreamLimiter
from bff.ops.connections import Connections
from bff.ops.health import Health, Probe, WriteProbe
from bff.ops.lag import LagMonitor
from bff.ops.lifecycle import Lifecycle, register, run_concurrently
from bff.ops.rate_limiter import RateLimiter
from bff.services import Services
from bff.upstream.broker_client import BrokerClient
from bff.upstream.engine_client import EngineClient
from bff.upstream.http import InProcessService

if TYPE_CHECKING:
    from bff.auth.identity import Authenticator
    from bff.ops.redis import Client
    from bff.ops.redis_limits import RedisLimits


def build_parts(
    name: str, url_prefix: str, services: Services, connections: Connections, authenticator: "Authenticator | None"
) -> Parts:
    """`authenticator`: a host application's own. Raises SettingsError."""
    settings = services.settings
    redis = _redis_client(settings)
    redis_limits = _redis_limits(settings, redis)
    bundled = bundled_broker(settings, services, redis)
    own_broker = services.own_broker(bundled)
    broker = services.external_broker or own_broker
    store = ConversationStore(services.database)
    streams = StreamLimiter(settings.max_streams, settings.max_streams_per_user, shared=redis_limits)
    lag = LagMonitor()
    rate_limiter = RateLimiter(settings.messages_per_minute, redis_limits)
    return Parts(
        name=name,
        url_prefix=url_prefix,
        settings=settings,
        authenticator=authenticator or create_authenticator(settings),
        is_host_authenticated=authenticator is not None,
        broker=broker,
        own_broker=own_broker,
        streams=streams,
        rate=rate_limiter,
        health=Health(_health_probes(settings, broker, services.engine, store, redis)),
        engine=services.engine,
        tickets=Tickets(settings.signing_key(), settings.answer_max_seconds),
        agents=services.agent_infos,
        direct_agent_id=services.direct_agent_id,
        store=store,
        responses=ResponseStore(services.database, settings.history_characters),
        runs=_reply_runs(services, own_broker, rate_limiter),
        lag=lag,
        lifecycle=_lifecycle(settings, streams, connections, lag, bundled),
        queue_sizes=lambda: bundled.app.extensions["chat_bff"].queue_sizes(),
    )


def _redis_client(settings: Settings) -> "Client | None":
    """One client for all components, so that its limit of connections holds for the process."""
    if not settings.redis_url:
        return None
    from bff.ops.redis import connect

    return connect(settings.redis_url, verify=settings.redis_tls_verify)


def _redis_limits(settings: Settings, client: "Client | None") -> "RedisLimits | None":
    if client is None:
        return None
    from bff.ops.redis_limits import RedisLimits

    return RedisLimits(
        client, streams=settings.max_streams_per_user, per_minute=settings.messages_per_minute, prefix=settings.redis_prefix
    )


def _health_probes(
    settings: Settings, broker: BrokerClient, engine: EngineClient, store: ConversationStore, redis: "Client | None"
) -> dict[str, Probe]:
    """By name. The bundled engine runs in this process and needs none."""
    probes: dict[str, Probe] = {"broker": broker.check, "database": WriteProbe(store.check, store.check_writes)}
    if settings.engine_base_url:
        probes["engine"] = engine.check
    if redis is not None:
        from bff.ops.redis import ping
        from bff.ops.redis_check import check_use
        from bff.ops.redis_keys import Keys

        probes["redis"] = WriteProbe(partial(ping, redis), partial(check_use, redis, Keys(settings.redis_prefix)))
    return probes


def _reply_runs(services: Services, broker: BrokerClient, rate_limiter: RateLimiter) -> ReplyRuns:
    settings = services.settings
    replies = Replies(services.database, settings.history_characters)
    return ReplyRuns(replies, broker, services.agent_infos, DEFAULT_AGENT, rate_limiter, settings.conversation_on_disconnect)


def _lifecycle(
    settings: Settings, streams: StreamLimiter, connections: Connections, lag: LagMonitor, bundled: InProcessService
) -> Lifecycle:
    """Starts and drains the bundled broker as well, which is an app with a lifecycle of its own."""

    def start() -> None:
        lag.start()
        bundled.app.extensions["chat_bff"].lifecycle.start()

    def drain() -> None:
        drain_broker = bundled.app.extensions["chat_bff"].lifecycle.drain
        run_concurrently(settings.drain_seconds, streams.drain, connections.drain, lambda _: drain_broker())

    return register(Lifecycle(start, drain, streams.__len__))
