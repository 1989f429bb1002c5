"""`flask doctor` and `flask diagnose`: what is asked of a set-up before it is trusted, and when it misbehaves.

Both say sentences, and leave with status 1 when something is wrong.
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
    """Try the settings, the broker, the engine, Redis, the database and the limits, and say what is wrong."""
    from bff.api import services
    from bff.api.cli.doctor import Doctor

    parts = services.parts()
    _say(Doctor(parts.settings, parts.broker, parts.engine, parts.health.probes).findings())


@click.command("diagnose")
@click.argument("url")
def diagnose_command(url: str) -> None:
    """Find out whether something between here and the server at URL holds streams back."""
    from bff.api.cli import diagnose
    from bff.config.parsers import base_url

    try:
        heard = diagnose.listen(base_url(url))
    except ValueError as error:
        raise click.BadParameter(f"{url!r} {error}") from error
    except UpstreamFailure as problem:
        _say([diagnose.CheckResult(False, f"No stream came from {url}: {problem.detail or problem}.")])
        return
    _say(diagnose.evaluate(heard))


def _say(findings: "Iterable[CheckResult]") -> None:
    wrong = False
    for ok, message in findings:
        wrong = wrong or not ok
        print(f"{'ok   ' if ok else 'WRONG'}  {message}", flush=True)
    if wrong:
        sys.exit(1)
