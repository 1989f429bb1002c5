"""`flask db upgrade|downgrade|current`: the tables, made and changed."""

import sys
from collections.abc import Callable

import click

from bff.db import migrations
from bff.db.database import Database
from bff.errors import UpstreamUnavailable


def db(database: Database) -> click.Group:
    group = click.Group("db", help="The tables that conversations are kept in.")

    @group.command(help="Bring them up to REVISION, the newest unless it is given.")
    @click.argument("revision", default=migrations.HEAD)
    def upgrade(revision: str) -> None:
        _tell(lambda: database.upgrade(revision))

    @group.command(help="Take them back to REVISION: its name, -1 for one step, or base for none.")
    @click.argument("revision", default="-1")
    def downgrade(revision: str) -> None:
        _tell(lambda: database.downgrade(revision))

    @group.command(help="The revision they are at.")
    def current() -> None:
        _tell(database.current)

    # So that `downgrade -1` is no option.
    downgrade.context_settings["ignore_unknown_options"] = True
    return group


def _tell(do: Callable[[], str]) -> None:
    try:
        revision = do()
    except UpstreamUnavailable as error:
        click.echo(f"The database cannot be reached: {error.detail}", err=True)
        sys.exit(1)
    except migrations.UnknownRevision as error:
        click.echo(f"There is no such revision: {error}", err=True)
        sys.exit(1)
    click.echo(f"The database is at revision {revision}." if revision else "The database has no tables of ours.")
