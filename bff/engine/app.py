"""Builds the bundled engine, which is called over HTTP only."""

from typing import TYPE_CHECKING

from bff.config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask import Flask

    from bff.db.database import Database
    from bff.engine.agents.base import Agent
    from bff.upstream.http import InProcessService


def create_engine(
    settings: Settings,
    key: str,
    agents: "Mapping[str, Agent] | None" = None,
    database: "Database | None" = None,
) -> "Flask":
    """`key`: the bearer key of callers. Agents and database are created from the settings unless given."""
    from flask import Flask

    from bff.db.database import open_database
    from bff.db.direct_chat import DirectChat
    from bff.db.replies import Replies
    from bff.db.responses import ResponseStore
    from bff.engine.agents.registry import create_agents, for_direct_chat
    from bff.engine.hooks import Parts
    from bff.engine.routes import register
    from bff.engine.turns import Stores, Turns

    agents = create_agents(settings) if agents is None else agents
    database = database or open_database(settings)
    characters = settings.history_characters
    stores = Stores(Replies(database, characters), DirectChat(database, characters), ResponseStore(database, characters))
    turns = Turns(stores, agents, for_direct_chat(settings, agents))
    app = Flask(__name__)
    register(app, Parts(key, settings.max_body_bytes, settings.request_seconds, settings.keepalive_seconds, turns))
    return app


def bundled_engine(settings: Settings, agents: "Mapping[str, Agent]", database: "Database") -> "InProcessService":
    """The engine inside this process."""
    from bff.upstream.http import InProcessService

    return InProcessService("engine", lambda key: create_engine(settings, key, agents, database))
