"""The bundled engine: answers through an agent, and fails on command.

A neighbour, spoken to over HTTP only, until `ENGINE_BASE_URL` names a real one.
"""

from typing import TYPE_CHECKING

from bff.settings import Settings

if TYPE_CHECKING:
    from flask import Flask

    from bff.agents import Agent
    from bff.transport import Neighbour
    from bff.upstream import Service


def create_engine(settings: Settings, key: str, agent: "Agent | None" = None) -> "Flask":
    from flask import Flask

    from bff.agents.catalogue import engines_own
    from bff.engine.door import Parts
    from bff.engine.memory import Memory
    from bff.engine.routes import register

    app = Flask(__name__)
    register(app, Parts(agent or engines_own(settings), key, settings.max_body_bytes, settings.request_seconds, Memory()))
    return app


def bundled_engine(settings: Settings) -> "Neighbour":
    from bff.transport import Neighbour

    return Neighbour("engine", lambda key: create_engine(settings, key))


def the_engine(settings: Settings) -> "Service":
    """The one that was named, else the bundled one. Its memory is its own: who wants to share it shares this."""
    from bff.upstream import Remote

    if settings.engine_base_url:
        return Remote(settings.engine_base_url, settings.engine_api_key)
    return bundled_engine(settings)
