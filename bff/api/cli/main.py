"""The command line `chat-bff`: the server, a worker process, and the commands that `flask` has in a checkout."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn

import click
from flask import Flask
from flask.cli import FlaskGroup, NoAppException, ScriptInfo

from bff.api.cli.commands import diagnose
from bff.api.cli.conformance.command import conformance
from bff.config.environment import load_settings, unset_flask_cli
from bff.config.settings import Settings
from bff.errors import SettingsError


def command_line(create_app: Callable[[], Flask]) -> click.Group:
    def app_for_commands() -> Flask:
        unset_flask_cli()
        try:
            return create_app()
        except SettingsError as error:
            raise NoAppException(str(error)) from error  # Commands end with it, and `--help` prints it.

    group = _Commands(
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
    group.add_command(diagnose(_settings_for_diagnose))
    return group


class _Commands(FlaskGroup):
    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """An invalid setting ends a command of the app. Flask would add that there is no such command."""
        if click.Group.get_command(self, ctx, name) is None:
            try:
                ctx.ensure_object(ScriptInfo).load_app()
            except NoAppException as error:
                click.echo(error.message, err=True)
                ctx.exit(3)
        return super().get_command(ctx, name)


def _settings_for_diagnose() -> Settings:
    """It runs on any machine, and needs none that a server does."""
    try:
        return load_settings(backend_only=True)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error


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
