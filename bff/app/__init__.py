"""The app of `gunicorn app:app`, `flask run` and `chat-bff run`: the extension in an application that has nothing else."""

import sys
from collections.abc import Iterable

from flask import Flask

from bff.api import hooks
from bff.api.cli import commands
from bff.app.extension import ChatBFF
from bff.auth.identity import Authenticator
from bff.config import checks
from bff.config.environment import load_settings
from bff.config.settings import Settings
from bff.engine.agents.base import Agent
from bff.errors import SettingsError
from bff.ops import memory
from bff.ops.logging import configure_logging


def wsgi_app() -> Flask:
    """The app for a server. An invalid setting ends the process with a message and status 3."""
    try:
        return build(load_settings())
    except SettingsError as error:
        print(error, file=sys.stderr)
        sys.exit(3)  # gunicorn stops at status 3; after any other it would start new workers again and again.


def build(settings: Settings, agents: Iterable[Agent] = (), authenticator: Authenticator | None = None) -> Flask:
    """See `ChatBFF`. Raises SettingsError."""
    memory.unmap_large_blocks()
    configure_logging(settings.log_level, settings.log_format, checks.secret_values(settings))
    app = Flask("bff", static_folder=None)  # The page's blueprint serves /static itself.
    hooks.add_app_hooks(app)
    ChatBFF(app, settings=settings, agents=agents, authenticator=authenticator)
    commands.add_aliases(app)
    return app
