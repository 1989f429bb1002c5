"""A backend-for-frontend for AI chat: between a browser and a queue-backed engine, thousands of streams in one process."""

import logging
from functools import partial
from typing import TYPE_CHECKING

from bff import safety
from bff.settings import Settings

if TYPE_CHECKING:
    from flask import Flask

    from bff.agents import Agent
    from bff.identity import IdentityMode
    from bff.ops.life import Life
    from bff.ops.limits import SharedLimits
    from bff.ops.redis import Client
    from bff.ops.streams import Streams
    from bff.orgs import Orgs
    from bff.transport import Neighbour

__version__ = "0.1.0"
"""Said here only: pyproject.toml and /openapi.json read it."""

# Nothing heavy at module level: gunicorn.conf.py reads the settings before gevent has patched anything.


def create_app(settings: Settings | None = None) -> "Flask":
    """Builds every part once and hands it to the doors. Raises SettingsError."""
    from flask import Flask
    from werkzeug.middleware.proxy_fix import ProxyFix

    from bff.agents.catalogue import create_agents
    from bff.broker import bundled_broker
    from bff.engine import the_engine
    from bff.engine_client import EngineClient
    from bff.held import HeldAnswers
    from bff.ops import logs
    from bff.ops.health import Health
    from bff.ops.streams import Rate, Streams
    from bff.routes import audio, chat, contract, conversations, door, history, openai, ops, page, preferences, tickets
    from bff.tickets import Tickets
    from bff.transport import new_session
    from bff.upstream import BrokerClient, Remote, Timeouts

    settings = settings or Settings.from_environment()
    logs.set_up(settings.log_level, settings.log_format, safety.secrets_of(settings))
    timeouts = Timeouts(
        settings.upstream_connect_seconds,
        settings.upstream_open_seconds,
        settings.upstream_read_seconds,
        settings.engine_seconds,
    )
    app = Flask(__name__, static_folder=None)  # It would answer for /static, where the page has its files.
    held = HeldAnswers(
        answer_max_seconds=settings.answer_max_seconds,
        retention_seconds=settings.retention_seconds,
        most_bytes=settings.log_max_bytes,
    )
    redis = _redis(settings)
    engine = the_engine(settings)
    neighbour = None if settings.broker_base_url else bundled_broker(settings, engine, redis)
    service = neighbour or Remote(settings.broker_base_url, settings.broker_api_key)
    broker = BrokerClient(
        service,
        new_session(to=service),
        timeouts,
        held,
        client_id=settings.client_id,
        max_event_bytes=settings.max_event_bytes,
        stands_alone=bool(settings.broker_base_url or settings.redis_url),
    )
    shared = _shared_limits(settings, redis)
    streams = Streams(settings.max_streams, settings.max_streams_per_user, shared=shared)
    rate = Rate(settings.messages_per_minute, shared)
    health = Health({"broker": broker.check})
    agents = create_agents(settings, broker)
    app.extensions["bff"] = door.Parts(
        settings,
        _identity_mode(settings),
        broker,
        streams,
        rate,
        health,
        EngineClient(engine, new_session(to=engine), timeouts, settings.max_event_bytes),
        Tickets(settings.signing_key(), settings.answer_max_seconds),
        agents,
    )
    _add_conversations(app, settings, agents)
    app.extensions["life"] = _life(settings, streams, neighbour if settings.redis_url else None)
    door.guard(app)
    for blueprint in (
        chat.bp,
        conversations.bp,
        history.bp,
        preferences.bp,
        audio.bp,
        tickets.bp,
        openai.bp,
        ops.bp,
        contract.bp,
        page.bp,
    ):
        app.register_blueprint(blueprint)
    if hops := settings.trusted_proxy_hops:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
    for danger in safety.dangers(settings):
        logging.getLogger(__name__).warning(danger)
    return app


def _add_conversations(app: "Flask", settings: Settings, agents: "dict[str, Agent]") -> None:
    from bff.agents.catalogue import DEFAULT
    from bff.conversations.claims import Claims
    from bff.conversations.commands import db
    from bff.conversations.database import Database
    from bff.conversations.store import ConversationStore
    from bff.conversations.turns import Turns
    from bff.ops.streams import Rate
    from bff.routes import conversations

    # In development nobody has to know of migrations; elsewhere they are a step of the deploy.
    database = Database(settings.database_url, migrate=settings.development)
    store, claims = ConversationStore(database), Claims(database, settings.lease_seconds)
    turns = Turns(store, claims, agents, DEFAULT, settings.answer_max_seconds)
    app.extensions["conversations"] = conversations.Parts(store, turns, Rate(settings.messages_per_minute))
    app.cli.add_command(db(database))


def _identity_mode(settings: Settings) -> "IdentityMode":
    from bff.identity import Anonymous, Proxy
    from bff.orgs import Orgs

    orgs = Orgs(settings.default_org, settings.org_map_file)
    if settings.auth_mode == "jwt":
        return _jwt(settings, orgs)
    if settings.auth_mode == "proxy":
        return Proxy(settings.auth_proxy_user_header, settings.auth_proxy_secret, orgs)
    return Anonymous(settings.signing_key(), orgs)


def _jwt(settings: Settings, orgs: "Orgs") -> "IdentityMode":
    from bff.jwt_identity import JWT, Claims, Key, keys_of
    from bff.keys import FetchedKeys, FixedKey, Keys
    from bff.transport import new_session, read_url

    keys: Keys[Key]
    if url := settings.auth_jwt_jwks_url:
        session, seconds = new_session(), settings.upstream_connect_seconds
        keys = FetchedKeys(lambda: keys_of(read_url(session, url, seconds)))
    else:
        keys = FixedKey(Key("HS256", settings.auth_jwt_secret))
    claims = Claims(
        settings.auth_jwt_audience, settings.auth_jwt_issuer, settings.auth_jwt_user_claim, settings.auth_jwt_org_claim
    )
    return JWT(keys, claims, cookie=settings.auth_jwt_cookie, orgs=orgs)


def _redis(settings: Settings) -> "Client | None":
    """One for all who need it, so that the process's connections are bounded."""
    if not settings.redis_url:
        return None
    from bff.ops import redis

    return redis.connect(settings.redis_url, verify=settings.redis_tls_verify)


def _shared_limits(settings: Settings, client: "Client | None") -> "SharedLimits | None":
    if client is None:
        return None
    from bff.ops.limits import SharedLimits

    return SharedLimits(client, streams=settings.max_streams_per_user, per_minute=settings.messages_per_minute)


def _life(settings: Settings, streams: "Streams", neighbour: "Neighbour | None") -> "Life":
    """`neighbour`: one that has a life of its own. With Redis there is work for it before anybody asks."""
    from bff.ops.life import Life, together

    if neighbour is None:
        return Life(lambda: None, partial(streams.drain, settings.drain_seconds))
    return Life(
        lambda: neighbour.app.extensions["life"].start(),
        lambda: together(settings.drain_seconds, streams.drain, lambda _: neighbour.app.extensions["life"].drain()),
    )
