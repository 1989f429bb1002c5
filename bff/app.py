"""Builds every component once, from the settings, and wires them into the Flask app."""

import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from flask import Flask

from bff.api import (
    audio,
    chat,
    conversations,
    diagnostics,
    health,
    history,
    hooks,
    openapi,
    page,
    preferences,
    tickets,
    v1,
)
from bff.api.cli import commands
from bff.api.cli.db import db
from bff.api.conversation_replies import ReplyRuns
from bff.api.services import Parts
from bff.auth.anonymous import Anonymous
from bff.auth.identity import Authenticator
from bff.auth.orgs import Orgs
from bff.auth.proxy import Proxy
from bff.auth.tickets import Tickets
from bff.broker.app import bundled_broker
from bff.config import checks
from bff.config.environment import load_settings
from bff.config.settings import Settings
from bff.db.replies import Replies
from bff.db.store import ConversationStore
from bff.engine.agents.base import Agent
from bff.engine.agents.registry import DEFAULT_AGENT
from bff.errors import SettingsError
from bff.http.forwarded import TrustedProxies
from bff.http.streams import StreamLimiter
from bff.ops import memory
from bff.ops.connections import BoundedResponses, Connections
from bff.ops.health import Health, Probe, WriteProbe
from bff.ops.lag import LagMonitor
from bff.ops.lifecycle import Lifecycle, register, run_concurrently
from bff.ops.logging import configure_logging
from bff.ops.rate_limiter import RateLimiter
from bff.services import Services
from bff.upstream.broker_client import BrokerClient
from bff.upstream.engine_client import EngineClient
from bff.upstream.http import InProcessService, session_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bff.auth.jwt import JWT
    from bff.ops.redis import Client
    from bff.ops.redis_limits import RedisLimits

BLUEPRINTS: Final = (chat, conversations, history, preferences, audio, tickets, v1, health, diagnostics, openapi, page)


def wsgi_app() -> Flask:
    """The app for a server. An invalid setting ends the process with a message and status 3."""
    try:
        return build(load_settings())
    except SettingsError as error:
        print(error, file=sys.stderr)
        sys.exit(3)  # gunicorn stops at status 3; after any other it would start new workers again and again.


def build(settings: Settings, agents: "Iterable[Agent]" = ()) -> Flask:
    """`agents`: the application's own. Raises SettingsError."""
    memory.unmap_large_blocks()
    _set_up_logging(settings)
    redis = _redis_client(settings)
    redis_limits = _redis_limits(settings, redis)
    services = Services(settings, agents)
    bundled = bundled_broker(settings, services, redis)
    own_broker = services.own_broker(bundled)
    broker = services.external_broker or own_broker
    store = ConversationStore(services.database)
    streams = StreamLimiter(settings.max_streams, settings.max_streams_per_user, shared=redis_limits)
    connections = Connections(settings.slow_reader_seconds, settings.request_seconds)
    lag = LagMonitor()
    rate_limiter = RateLimiter(settings.messages_per_minute, redis_limits)
    app = _flask_app(services, connections)
    app.extensions["chat_bff"] = Parts(
        settings=settings,
        authenticator=_authenticator(settings),
        broker=broker,
        own_broker=own_broker,
        streams=streams,
        rate=rate_limiter,
        health=Health(_health_probes(settings, broker, services.engine, store, redis)),
        engine=services.engine,
        tickets=Tickets(settings.signing_key(), settings.answer_max_seconds),
        agents=services.agent_infos,
        store=store,
        runs=_reply_runs(services, own_broker, rate_limiter),
        lag=lag,
        lifecycle=_lifecycle(settings, streams, connections, lag, bundled),
        queue_sizes=lambda: bundled.app.extensions["chat_bff"].queue_sizes(),
    )
    return app


def _set_up_logging(settings: Settings) -> None:
    configure_logging(settings.log_level, settings.log_format, checks.secret_values(settings))
    for message in (*checks.dangers(settings), *checks.warnings(settings)):
        logging.getLogger(__name__).warning(message)


def _flask_app(services: Services, connections: Connections) -> Flask:
    """With CLI commands, hooks, blueprints and middleware."""
    app = Flask("bff", static_folder=None)  # The page's blueprint serves /static itself.
    commands.add_commands(app, db(services.database))
    hooks.add_app_hooks(app)
    for module in BLUEPRINTS:
        app.register_blueprint(module.bp)
    if hops := services.settings.trusted_proxy_hops:
        app.wsgi_app = TrustedProxies(app.wsgi_app, hops)  # type: ignore[method-assign]
    app.wsgi_app = BoundedResponses(app.wsgi_app, connections)  # type: ignore[method-assign]
    return app


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


def _authenticator(settings: Settings) -> Authenticator:
    orgs = Orgs(settings.default_org, settings.org_map_file)
    if settings.auth_mode == "jwt":
        return _jwt(settings, orgs)
    if settings.auth_mode == "proxy":
        return Proxy(settings.auth_proxy_user_header, settings.auth_proxy_secret, orgs)
    return Anonymous(settings.signing_key(), orgs)


def _jwt(settings: Settings, orgs: Orgs) -> "JWT":
    from bff.auth.jwks import FixedKey, JWKSCache, Keys
    from bff.auth.jwt import JWT, Claims, JWKSParser, Key  # Imports a cryptography library, which only this mode needs.
    from bff.upstream.http import read_url

    keys: Keys[Key]
    if url := settings.auth_jwt_jwks_url:
        session, timeout = session_for(settings), settings.upstream_connect_seconds
        parse = JWKSParser()
        keys = JWKSCache(lambda: parse(read_url(session, url, timeout)))
    else:
        keys = FixedKey(Key(("HS256",), settings.auth_jwt_secret))
    claims = Claims(
        settings.auth_jwt_audience, settings.auth_jwt_issuer, settings.auth_jwt_user_claim, settings.auth_jwt_org_claim
    )
    return JWT(keys, claims, cookie=settings.auth_jwt_cookie, orgs=orgs)


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
