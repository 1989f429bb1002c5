"""`ChatBFF`, the Flask extension."""

import logging
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flask import Blueprint, Flask

from bff.api import (
    audio,
    chat,
    conversations,
    diagnostics,
    health,
    history,
    openapi,
    page,
    preferences,
    responses,
    tickets,
    v1,
)
from bff.api.cli import commands
from bff.api.services import DEFAULT_NAME
from bff.app.parts import build_parts
from bff.auth.identity import Authenticator
from bff.config import checks
from bff.config.environment import load_settings
from bff.config.settings import DEFAULT_QUEUE_FILE, Settings
from bff.engine.agents.base import Agent
from bff.http.forwarded import TrustedProxies
from bff.ops.connections import BoundedResponses, Connections
from bff.services import Services

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

BLUEPRINTS: Final = (
    chat,
    conversations,
    history,
    preferences,
    audio,
    tickets,
    v1,
    responses,
    health,
    diagnostics,
    openapi,
    page,
)
URL_PREFIX: Final = re.compile("(/[A-Za-z0-9._~-]+)*")
NAME: Final = re.compile("[A-Za-z_][A-Za-z0-9_]*")

log = logging.getLogger(__name__)


class ChatBFF:
    """The API and the page of the chat, below a URL prefix of an application: see docs/embedding.md.

    All routes, hooks and error handlers belong to one blueprint; the command line gets the group `chat`. The application's
    other routes, error pages, loggers and tables are not touched.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        url_prefix: str = "",
        name: str = DEFAULT_NAME,
        settings: Settings | None = None,
        agents: Iterable[Agent] = (),
        authenticator: Authenticator | None = None,
    ) -> None:
        """`settings` are read from the environment by default. Raises SettingsError, like `init_app`.

        `name`: of the blueprint, and the key in `app.extensions`; a second instance in one application needs its own.
        `agents`: further agents for this process. `authenticator`: replaces the one of AUTH_MODE; see `HostLogin`.
        """
        if not URL_PREFIX.fullmatch(url_prefix):
            raise ValueError(f"url_prefix={url_prefix!r} is not a path such as '/assistant'.")
        if not NAME.fullmatch(name):
            raise ValueError(f"name={name!r} is not an identifier.")
        self.url_prefix = url_prefix
        self.name = name
        self._settings = settings
        self._agents = tuple(agents)
        self._authenticator = authenticator
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Raises SettingsError if a setting is missing or invalid."""
        if self.name in app.extensions:
            raise ValueError(f"This application has an extension {self.name!r}: a second ChatBFF needs a name of its own.")
        settings = self._load_settings()
        for message in (*checks.dangers(settings), *checks.warnings(settings)):
            log.warning(message)
        app.register_blueprint(self._blueprint())
        services = Services(settings, self._agents)
        connections = Connections(settings.slow_reader_seconds, settings.request_seconds)
        parts = build_parts(self.name, self.url_prefix, services, connections, self._authenticator)
        app.extensions[self.name] = parts
        app.cli.add_command(commands.chat_group(self._group_name(), parts, services.database))
        app.wsgi_app = self._middleware(app.wsgi_app, settings, connections)  # type: ignore[assignment,method-assign]

    def _load_settings(self) -> Settings:
        settings = self._settings or load_settings(own_authenticator=self._authenticator is not None)
        if self.name == DEFAULT_NAME or settings.queue_file != DEFAULT_QUEUE_FILE or settings.dyno:
            return settings
        return replace(settings, queue_file=str(Path(DEFAULT_QUEUE_FILE).with_stem(f"queue-{self.name}")))

    def _blueprint(self) -> Blueprint:
        """The one that contains all others."""
        blueprint = Blueprint(self.name, __name__, url_prefix=self.url_prefix or None)
        for module in BLUEPRINTS:
            blueprint.register_blueprint(module.bp)
        return blueprint

    def _group_name(self) -> str:
        return "chat" if self.name == DEFAULT_NAME else self.name

    def _middleware(self, app: "WSGIApplication", settings: Settings, connections: Connections) -> "WSGIApplication":
        wrapped: WSGIApplication = BoundedResponses(app, connections)
        if settings.trusted_proxy_hops:
            wrapped = TrustedProxies(wrapped, settings.trusted_proxy_hops)
        return _BelowPrefix(self.url_prefix, wrapped, app) if self.url_prefix else wrapped


class _BelowPrefix:
    """WSGI middleware: requests below a URL prefix go to `wrapped`, all others to `app` itself."""

    def __init__(self, url_prefix: str, wrapped: "WSGIApplication", app: "WSGIApplication") -> None:
        self._url_prefix = url_prefix
        self._wrapped = wrapped
        self._app = app

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        is_below = f"{environ.get('PATH_INFO', '')}/".startswith(f"{self._url_prefix}/")
        return (self._wrapped if is_below else self._app)(environ, start_response)
