"""`flask chat db upgrade|downgrade|current`: migrations of the database's schema."""

import sys
from collections.abc import Callable

import click

from bff.db import migrations
from bff.db.database import Database
from bff.errors import UpstreamUnavailable


def db(database: Database) -> click.Group:
    group = click.Group("db", help="Manage the tables that store conversations.")

    @group.command(help="Upgrade to REVISION, by default the newest.")
    @click.argument("revision", default=migrations.HEAD)
    def upgrade(revision: str) -> None:
        _report(lambda: database.upgrade(revision))

    @group.command(help="Downgrade to REVISION: its name, -1 for one step, or base for no tables.")
    @click.argument("revision", default="-1")
    def downgrade(revision: str) -> None:
        _report(lambda: database.downgrade(revision))

    @group.command(help="Show the current revision.")
    def current() -> None:
        _report(database.current)

    # Otherwise click would take the -1 of `downgrade -1` for an option.
    downgrade.context_settings["ignore_unknown_options"] = True
    return group


def _report(migrate: Callable[[], str]) -> None:
    """Prints the revision that `migrate` returns. Exits with status 1 if it fails."""
    try:
        revision = migrate()
    except UpstreamUnavailable as error:
        click.echo(f"The database cannot be reached: {error.detail}", err=True)
        sys.exit(1)
    except migrations.MigrationError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    click.echo(f"The database is at revision {revision}." if revision else "The database has no tables of ours.")
