"""`flask chat webhooks`: the bundled broker's webhooks that wait or have failed, and `send`, which sends one again."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from bff.errors import ChatError, NotFound
from bff.upstream.broker_client import BrokerClient

T = TypeVar("T")


def webhooks(broker: BrokerClient) -> click.Group:
    """Without REDIS_URL the server's queue is in its QUEUE_FILE, which these commands read while the server runs."""

    @click.group("webhooks", invoke_without_command=True)
    @click.pass_context
    def group(context: click.Context) -> None:
        """List the webhooks that wait or have failed."""
        if context.invoked_subcommand is None:
            entries = _report_failure(broker.webhooks)
            for entry in entries:
                click.echo(_line(entry))
            if not entries:
                click.echo("No webhook waits or has failed.")

    @group.command(help="Send the webhook ID again, now.")
    @click.argument("id")
    def send(id: str) -> None:  # noqa: A002 - the argument's name in the usage
        try:
            _report_failure(lambda: broker.send_webhook(id))
        except NotFound:
            click.echo("No webhook with this id waits or has failed.", err=True)
            sys.exit(1)
        click.echo("It is being sent.")

    return group


def _line(entry: dict[str, Any]) -> str:
    when = "deleted" if entry["state"] == "failed" else "next try"
    error = f", {entry['error']}" if entry["error"] else ""
    tries = f"{entry['tries']} {'try' if entry['tries'] == 1 else 'tries'}"
    message = f"message {entry['message_id']} to {entry['url']}"
    return f"{entry['id']}  {entry['state']}, {tries}{error}, {when} {_moment(entry['next_at'])}: {message}"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _report_failure(call: Callable[[], T]) -> T:
    """Exits with status 1 if the queue cannot be reached."""
    try:
        return call()
    except NotFound:
        raise
    except ChatError as error:
        click.echo(f"The queue cannot be read: {error.detail or error}", err=True)
        sys.exit(1)
