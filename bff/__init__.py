"""A backend-for-frontend for AI chat: between a browser and a queue-backed engine, thousands of streams in one process."""

from typing import TYPE_CHECKING

from bff.config.environment import load_settings
from bff.config.settings import Settings

if TYPE_CHECKING:
    from flask import Flask

__version__ = "0.1.0"
"""The only place of the version: pyproject.toml and /openapi.json read it."""


def create_app(settings: Settings | None = None) -> "Flask":
    """Builds every part once and hands it to the doors. Raises SettingsError."""
    # Nothing heavy at module level: gunicorn.conf.py reads the settings before gevent has patched anything.
    from bff.app import build

    return build(settings or load_settings())
