"""The bundled engine: answers through an agent, and fails on command.

A neighbour, spoken to over HTTP only, until `ENGINE_BASE_URL` names a real one.
"""

from typing import TYPE_CHECKING

from bff.settings import Settings

if TYPE_CHECKING:
    from flask import Flask

    from bff.agents import Agent
    from bff.ops.loopback import Loopback


def create_engine(settings: Settings, key: str, agent: "Agent | None" = None) -> "Flask":
    from flask import Flask

    from bff.agents.echo import Echo
    from bff.engine.routes import Parts, register

    app = Flask(__name__)
    register(app, Parts(agent or Echo(settings.echo_word_seconds), key, settings.max_body_bytes))
    return app


def bundled_engine(settings: Settings) -> "Loopback":
    from bff.ops.loopback import Loopback

    return Loopback("engine", lambda key: create_engine(settings, key))
