"""`chat-bff conformance URL`: judges a running server from outside. Needs no settings."""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Final

import click

from bff.api.cli.conformance import chaos, report
from bff.api.cli.conformance.checks import ALL, TOPICS
from bff.api.cli.conformance.model import Check, Result
from bff.api.cli.conformance.runner import run_checks
from bff.api.cli.conformance.target import SLOW_MESSAGE, Options, Target, Unusable

EXIT_FAILED: Final = 1
EXIT_UNUSABLE: Final = 2
STDOUT: Final = "-"
HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def _headers(_: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple(_header(param, value) for value in values)


def _header(param: click.Parameter, value: str) -> tuple[str, str]:
    name, colon, text = value.partition(":")
    if not colon or not HEADER_NAME.fullmatch(name) or not value.isprintable():
        raise click.BadParameter(f"{value!r} is not a header: write 'Name: value'.", param=param)
    return name, text.strip()


def _checks(_: click.Context, param: click.Parameter, value: str | None) -> list[Check]:
    """Those that are named. A topic stands for all its checks."""
    names = {part.strip() for part in value.split(",")} if value else set()
    if unknown := names - {*ALL, *TOPICS}:
        raise click.BadParameter(f"There is no check {min(unknown)!r}; --list shows them.", param=param)
    return [check for check in ALL.values() if {check.id, check.topic} & names]


@click.command("conformance")
@click.argument("url", required=False)
@click.option("--list", "list_checks", is_flag=True, help="List the checks.")
@click.option("--explain", metavar="ID", callback=_checks, help="Say what a check is about, its rule and its meaning.")
@click.option("--only", callback=_checks, help="Run these checks, or topics such as `resume`.")
@click.option("--header", "headers", multiple=True, callback=_headers, help="Credentials; {user} stands for a user's name.")
@click.option("--slow-message", default=SLOW_MESSAGE, show_default=True, help="Is answered slowly, with many events.")
@click.option("--heartbeat", default=15.0, show_default=True, type=click.FloatRange(0.1), help="HEARTBEAT_SECONDS there.")
@click.option("--timeout", default=30.0, show_default=True, type=click.FloatRange(1.0), help="For one reply, in seconds.")
@click.option("--json", "json_file", metavar="FILE", help="Write the results as JSON; - is stdout.")
@click.option("--junit", "junit_file", metavar="FILE", help="Write the results as JUnit XML; - is stdout.")
@click.option("--chaos", "is_chaos", is_flag=True, help="Kill the server under load and judge what readers see.")
@click.option("--restart-command", metavar="CMD", help="Chaos: a shell command that kills and restarts the server.")
@click.option("--duration", default=30.0, show_default=True, type=click.FloatRange(1.0), help="Chaos: seconds of load.")
@click.option("--streams", default=20, show_default=True, type=click.IntRange(1, 200), help="Chaos: replies at a time.")
def conformance(
    url: str | None,
    list_checks: bool,
    explain: list[Check],
    only: list[Check],
    headers: tuple[tuple[str, str], ...],
    slow_message: str,
    heartbeat: float,
    timeout: float,
    json_file: str | None,
    junit_file: str | None,
    is_chaos: bool,
    restart_command: str | None,
    duration: float,
    streams: int,
) -> None:
    """Check whether the server at URL keeps the rules of docs/protocol.md. Sends messages, as users of its own.

    Exits with status 0 if all checks passed, 1 if one failed, and 2 if the server cannot be reached or refuses the credentials.
    """
    if list_checks or explain:
        _show(explain)
        return
    if url is None:
        raise click.UsageError("URL is missing.")
    if is_chaos != bool(restart_command):
        raise click.UsageError("--chaos and --restart-command need each other.")
    if is_chaos and only:
        raise click.UsageError("--chaos makes all of its checks: leave --only out.")
    target = _target(url, Options(headers, slow_message, timeout, heartbeat))
    if restart_command:
        plan = chaos.Plan(restart_command, duration, streams)
        _run(target, lambda show: chaos.run(target, plan, show), json_file, junit_file)
    else:
        chosen = only or [check for check in ALL.values() if check.topic != chaos.TOPIC]
        _run(target, lambda show: run_checks(target, chosen, show), json_file, junit_file)


def _show(checks: list[Check]) -> None:
    for check in checks:
        click.echo(report.explanation(check))
    for check in () if checks else ALL.values():
        click.echo(f"{check.id:<24} {check.title}")


def _target(url: str, options: Options) -> Target:
    try:
        return Target(url, options)
    except ValueError as error:
        raise click.BadParameter(f"{url!r} {error}", param_hint="URL") from error


Show = Callable[[Result], None]


def _run(target: Target, judge: Callable[[Show], list[Result]], json_file: str | None, junit_file: str | None) -> None:
    """Exits with a status other than 0 if a check failed or none could be made."""
    began = monotonic()
    quiet = STDOUT in {json_file, junit_file}
    try:
        results = judge(lambda result: click.echo(report.line(result), err=quiet))
    except Unusable as error:
        click.echo(f"The server cannot be judged: {error}.", err=True)
        sys.exit(EXIT_UNUSABLE)
    seconds = monotonic() - began
    click.echo(report.summary(results, seconds), err=quiet)
    _write(json_file, report.as_json(target.url, results, seconds))
    _write(junit_file, report.as_junit(target.url, results, seconds))
    _exit(results)


def _write(file: str | None, text: str) -> None:
    if file == STDOUT:
        click.echo(text, nl=False)
    elif file:
        Path(file).write_text(text, encoding="utf-8")


def _exit(results: Sequence[Result]) -> None:
    if any(result.status == "failed" for result in results):
        sys.exit(EXIT_FAILED)
