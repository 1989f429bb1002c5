"""A backend-for-frontend for AI chat: streams replies of a queue-backed engine to thousands of browsers per process."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from bff.config.environment import load_settings
from bff.config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flask import Flask

    from bff.app.extension import ChatBFF
    from bff.auth.host import HostLogin
    from bff.auth.identity import Authenticator
    from bff.engine.agents.base import Agent
    from bff.ops.gunicorn_config import gunicorn_config

__all__ = ["ChatBFF", "HostLogin", "Settings", "create_app", "gunicorn_config", "load_settings"]

__version__ = "0.2.0"
"""pyproject.toml and /openapi.json read the version from here."""

_IMPORTED_LATE: Final = {
    "ChatBFF": "bff.app.extension",
    "HostLogin": "bff.auth.host",
    "gunicorn_config": "bff.ops.gunicorn_config",
}
"""gunicorn's configuration imports this package before gevent has patched the standard library."""


def create_app(
    settings: Settings | None = None, *, agents: "Iterable[Agent]" = (), authenticator: "Authenticator | None" = None
) -> "Flask":
    """The Flask app; `settings` are read from the environment by default. Raises SettingsError.

    `agents`: further agents for this process. Those of worker processes are entry points: see docs/extending.md.
    `authenticator`: replaces the one of AUTH_MODE.
    """
    from bff.app import build

    return build(settings or load_settings(own_authenticator=authenticator is not None), agents, authenticator)


def __getattr__(name: str) -> Any:
    if module := _IMPORTED_LATE.get(name):
        return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
