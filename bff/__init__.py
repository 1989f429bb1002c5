"""A backend-for-frontend for AI chat: streams replies of a queue-backed engine to thousands of browsers per process."""

from typing import TYPE_CHECKING

from bff.config.environment import load_settings
from bff.config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flask import Flask

    from bff.engine.agents.base import Agent

__version__ = "0.1.0"
"""pyproject.toml and /openapi.json read the version from here."""


def create_app(settings: Settings | None = None, *, agents: "Iterable[Agent]" = ()) -> "Flask":
    """The Flask app; `settings` are read from the environment by default. Raises SettingsError.

    `agents`: further agents for this process. Those of worker processes are entry points: see docs/extending.md.
    """
    # Imported late: gunicorn.conf.py imports this package before gevent has patched the standard library.
    from bff.app import build

    return build(settings or load_settings(), agents)
