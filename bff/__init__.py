"""A backend-for-frontend for AI chat: between a browser and a queue-backed engine, thousands of streams in one process."""

from typing import TYPE_CHECKING

from bff.config.settings import Settings

if TYPE_CHECKING:
    from flask import Flask

__version__ = "0.1.0"
"""Said here only: pyproject.toml and /openapi.json read it."""


def create_app(settings: Settings | None = None) -> "Flask":
    """Builds every part once and hands it to the doors. Raises SettingsError."""
    # Nothing heavy at module level: gunicorn.conf.py reads the settings before gevent has patched anything.
    from bff.app import build

    return build(settings or Settings.from_environment())
