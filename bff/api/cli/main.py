"""The command line `chat-bff`: the server, a worker process, and the commands that `flask` has in a checkout."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn

import click
from flask import Flask
from flask.cli import FlaskGroup, NoAppException

from bff.api.cli.conformance import conformance
from bff.config.environment import unset_flask_cli
from bff.errors import SettingsError


def command_line(create_app: Callable[[], Flask]) -> click.Group:
    def app_for_commands() -> Flask:
        unset_flask_cli()
        try:
            return create_app()
        except SettingsError as error:
            raise NoAppException(str(error)) from error  # Commands end with it, and `--help` prints it.

    group = FlaskGroup(
        name="chat-bff",
        create_app=app_for_commands,
        add_default_commands=False,
        add_version_option=False,
        help="Chat backend-for-frontend. Environment variables configure it: docs/configuration.md.",
    )
    group.params = [option for option in group.params if option.name == "env_file"]  # Others would run another app than ours.
    group.add_command(run)
    group.add_command(worker)
    group.add_command(conformance)
    return group


@click.command(help="Run the web server, as `gunicorn app:app` does in a checkout.")
def run() -> NoReturn:
    _replace_process("gunicorn", "--config", "python:bff.ops.gunicorn_conf", "bff.app:wsgi_app()")


@click.command(help="Run a worker process, which serves no HTTP. Needs REDIS_URL.")
def worker() -> NoReturn:
    _replace_process("bff.broker")


def _replace_process(*command: str) -> NoReturn:
    """Runs a module in a new interpreter: gevent has to patch the standard library before anything is imported."""
    unset_flask_cli()
    os.execv(sys.executable, [sys.executable, "-m", *command])  # noqa: S606 - no shell is wanted
