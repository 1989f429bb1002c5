"""Reads the settings from the environment, once, and checks them.

This is the only reader of `os.environ`. A missing or invalid setting raises `SettingsError` with one sentence. The
entry point prints it to stderr and exits with status 3, so that gunicorn stops instead of starting the next worker.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Any, Final

from bff.config import checks
from bff.config.settings import Settings, streams_by_descriptors
from bff.errors import SettingsError

ALL_ADDRESSES: Final = "0.0.0.0"  # noqa: S104 - a hosting platform's router connects from outside


def load_settings(
    environment: Mapping[str, str] | None = None, *, backend_only: bool = False, own_authenticator: bool = False
) -> Settings:
    """Raises SettingsError, whose message names the setting and what is wrong with it.

    `backend_only`: leaves out the checks for processes that serve browsers; a broker or worker process serves none.
    `own_authenticator`: AUTH_MODE has no effect, and is not required in production.
    """
    environment = dict(os.environ if environment is None else environment)
    if environment.get("FLASK_RUN_FROM_CLI") == "true" and not environment.get("APP_ENV", "").strip():
        environment["APP_ENV"] = "development"
    values = {f.name: value for f in fields(Settings) if (value := _read(f, environment)) is not None}
    settings = _with_defaults(Settings(**values))
    for message in checks.refusals(settings, backend_only=backend_only, own_authenticator=own_authenticator):
        raise SettingsError(message)
    return settings


def unset_flask_cli() -> None:
    """Makes APP_ENV `production` by default, as for a server, also in commands that use Flask's command line."""
    os.environ.pop("FLASK_RUN_FROM_CLI", None)


def _with_defaults(settings: Settings) -> Settings:
    """Fills in the defaults that depend on other settings."""
    return replace(
        settings,
        host=settings.host or ("127.0.0.1" if settings.development else ALL_ADDRESSES),
        max_streams=settings.max_streams or streams_by_descriptors(*settings.descriptor_needs()),
        log_format=settings.log_format or ("text" if settings.development else "json"),
    )


def _read(f: "Field[Any]", environment: Mapping[str, str]) -> Any:
    name: str = f.metadata["name"]
    text = environment.get(f.metadata["alias"], "").strip() or environment.get(name, "").strip()
    if f.metadata.get("secret"):
        text = text or _from_file(name, environment.get(f"{name}_FILE", "").strip())
        if not text.isprintable() or not text.isascii():
            raise SettingsError(f"{name} holds characters that are not printable ASCII.")
    if not text:
        return None  # An empty value is an unset one: the forms of hosting platforms cannot tell them apart.
    try:
        return f.metadata["parse"](text)
    except ValueError as error:
        if f.metadata.get("secret"):
            raise SettingsError(f"{name} {error}.") from None
        redacted = re.sub(r"//.*@", "//…@", text)  # A password in a URL.
        raise SettingsError(f"{name}={redacted!r} {error}.") from error


def _from_file(name: str, path: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}_FILE={path!r} cannot be read.") from error
