"""`flask doctor` checks the configuration; `flask diagnose <url>` checks the network in front of a running server.

Both print one line for each result and exit with status 1 if anything is wrong.
"""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click
from flask import Flask
from flask.cli import with_appcontext

from bff.errors import UpstreamFailure

if TYPE_CHECKING:
    from bff.api.cli.diagnose import CheckResult


def add_commands(app: Flask, *more: click.Command) -> None:
    for command in (doctor_command, diagnose_command, *more):
        app.cli.add_command(command)


@click.command("doctor")
@with_appcontext
def doctor_command() -> None:
    """Check the settings, the services and the ways to them, Redis, the database and the limits."""
    from bff.api import services
    from bff.api.cli.doctor import Doctor

    parts = services.parts()
    _report(Doctor(parts.settings, parts.broker, parts.engine, parts.health.probes).results())


@click.command("diagnose")
@click.argument("url")
@with_appcontext
def diagnose_command(url: str) -> None:
    """Find out whether a proxy between here and the server at URL buffers streams. Uses CA_FILE and HTTPS_PROXY."""
    from bff.api import services
    from bff.api.cli import diagnose
    from bff.config.parsers import base_url
    from bff.upstream.http import session_for

    try:
        probed = diagnose.probe(base_url(url), session_for(services.parts().settings))
    except ValueError as error:
        raise click.BadParameter(f"{url!r} {error}") from error
    except UpstreamFailure as failure:
        _report([diagnose.CheckResult(False, f"No stream came from {url}: {failure.detail or failure}.")])
        return
    _report(diagnose.evaluate(probed))


def _report(results: "Iterable[CheckResult]") -> None:
    """Prints the results as they come. Exits with status 1 if one is not ok."""
    failed = False
    for ok, message in results:
        failed = failed or not ok
        print(f"{'ok   ' if ok else 'WRONG'}  {message}", flush=True)
    if failed:
        sys.exit(1)
