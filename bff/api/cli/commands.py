"""`flask chat doctor|diagnose|webhooks|db`: the configuration, the network in front of a running server, webhooks, the tables.

`doctor` and `diagnose` print one line for each result and exit with status 1 if anything is wrong. `flask doctor`, `flask
diagnose`, `flask webhooks` and `flask db` are aliases. Flask-Migrate has a command `db`, too, which takes precedence where it
is installed.

Their modules are imported when they are needed: `chat-bff run` needs none of the libraries.
"""

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click
from flask import Flask

from bff.config.settings import Settings
from bff.errors import UpstreamFailure

if TYPE_CHECKING:
    from bff.api.cli.diagnose import CheckResult
    from bff.api.services import Parts
    from bff.db.database import Database


def chat_group(name: str, parts: "Parts", database: "Database") -> click.Group:
    """The commands of one instance."""
    from bff.api.cli.db import db
    from bff.api.cli.webhooks import webhooks

    group = click.Group(name, help="Check and maintain the chat backend.")
    for command in (doctor(parts), diagnose(lambda: parts.settings), webhooks(parts.own_broker), db(database)):
        group.add_command(command)
    return group


def add_aliases(app: Flask) -> None:
    """Adds the commands of the group `chat` to the top level as well: for an app that is ours alone."""
    group: Any = app.cli.commands["chat"]
    for command in group.commands.values():
        app.cli.add_command(command)


def doctor(parts: "Parts") -> click.Command:
    @click.command("doctor")
    def command() -> None:
        """Check the settings, the services and the ways to them, Redis, the database and the limits."""
        from bff.api.cli.doctor import Doctor

        probes, own = parts.health.probes, parts.is_host_authenticated
        _report(Doctor(parts.settings, parts.broker, parts.engine, probes, own_authenticator=own).results())

    return command


def diagnose(settings: Callable[[], Settings]) -> click.Command:
    @click.command("diagnose")
    @click.argument("url")
    def command(url: str) -> None:
        """Find out whether a proxy between here and the server at URL buffers streams. Uses CA_FILE and HTTPS_PROXY."""
        from bff.api.cli import diagnose
        from bff.config.parsers import base_url
        from bff.upstream.http import session_for

        try:
            probed = diagnose.probe(base_url(url), session_for(settings()))
        except ValueError as error:
            raise click.BadParameter(f"{url!r} {error}") from error
        except UpstreamFailure as failure:
            _report([diagnose.CheckResult(False, f"No stream came from {url}: {failure.detail or failure}.")])
            return
        _report(diagnose.evaluate(probed))

    return command


def _report(results: "Iterable[CheckResult]") -> None:
    """Prints the results as they come. Exits with status 1 if one is not ok."""
    failed = False
    for ok, message in results:
        failed = failed or not ok
        print(f"{'ok   ' if ok else 'WRONG'}  {message}", flush=True)
    if failed:
        sys.exit(1)
