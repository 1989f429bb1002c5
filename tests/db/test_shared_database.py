"""A database that another program uses, too: its revisions and tables are never read or changed."""

from collections.abc import Iterator
from uuid import UUID

import pytest
from sqlalchemy import inspect, text

from bff.db import migrations
from bff.db.database import Database
from bff.db.store import ConversationStore
from bff.errors import UpstreamUnavailable

HEAD = "0008"
FOREIGN_MESSAGES = "CREATE TABLE chat_messages (id INTEGER PRIMARY KEY, body TEXT)"
DEFAULT_TABLE = "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """An empty database."""
    database = Database(url)
    yield database
    database.close()


def execute(database: Database, *statements: str) -> None:
    database.write(lambda session: [session.execute(text(statement)) for statement in statements])


def revisions(database: Database, table: str) -> list[str]:
    return database.read(lambda session: sorted(session.scalars(text(f"SELECT version_num FROM {table}"))))


def tables(database: Database) -> set[str]:
    return database.read(lambda session: set(inspect(session.connection()).get_table_names()))


def add_foreign_revision(database: Database, revision: str) -> None:
    execute(database, DEFAULT_TABLE, f"INSERT INTO alembic_version VALUES ('{revision}')")


def at_an_earlier_release(database: Database, revision: str) -> UUID:
    """Tables with data, as a release that used Alembic's default table left them."""
    database.upgrade()
    conversation = ConversationStore(database).create("ada", "Old").id
    database.downgrade(revision)
    assert (revisions(database, "alembic_version"), revisions(database, "chat_alembic_version")) == ([revision], [])
    execute(database, "DROP TABLE chat_alembic_version")
    return conversation


@pytest.mark.parametrize("revision", ["ae1027a6acf", HEAD, "0005", "0001"])
def test_another_programs_revision_is_left_alone(database, revision):
    add_foreign_revision(database, revision)

    assert database.current() == ""
    assert database.upgrade() == HEAD == database.current()
    assert database.downgrade("0005") == "0005" == database.current()
    assert database.downgrade("base") == ""
    assert database.upgrade() == HEAD

    assert revisions(database, "alembic_version") == [revision]
    assert revisions(database, "chat_alembic_version") == [HEAD]


@pytest.mark.parametrize("revision", ["0001", "0003", "0005"])
def test_the_revision_of_an_earlier_release_is_taken_over_with_its_data(database, revision):
    conversation = at_an_earlier_release(database, revision)
    assert database.current() == revision

    assert database.upgrade() == HEAD

    assert (revisions(database, "alembic_version"), revisions(database, "chat_alembic_version")) == ([], [HEAD])
    assert ConversationStore(database).get("ada", conversation).title == "Old"


def test_only_our_row_is_taken_over(database):
    at_an_earlier_release(database, "0005")
    execute(database, "INSERT INTO alembic_version VALUES ('ae1027a6acf')")

    assert database.upgrade() == HEAD

    assert revisions(database, "alembic_version") == ["ae1027a6acf"]


def test_an_earlier_release_finds_the_revision_after_a_downgrade(database):
    database.upgrade()

    assert database.downgrade("0005") == "0005"
    assert database.downgrade("-1") == "0004" == database.current()

    assert revisions(database, "alembic_version") == ["0004"]


def test_an_upgrade_takes_over_a_downgraded_database(database):
    conversation = at_an_earlier_release(database, "0005")

    assert [database.upgrade(), database.downgrade("0002"), database.upgrade()] == [HEAD, "0002", HEAD]

    assert ConversationStore(database).get("ada", conversation).title == "Old"


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        (FOREIGN_MESSAGES, "chat_messages"),
        ("CREATE VIEW chat_preferences AS SELECT 1 AS one", "chat_preferences"),
        (
            "CREATE TABLE posts (owner INTEGER); CREATE INDEX ix_chat_messages_reply_to ON posts (owner)",
            "ix_chat_messages_reply_to",
        ),
    ],
    ids=["table", "view", "index"],
)
def test_another_programs_tables_are_named_and_left_alone(database, statement, name):
    execute(database, *statement.split("; "))
    before = tables(database)

    with pytest.raises(migrations.ForeignTables, match=rf"another program with names of ours: {name}\."):
        database.upgrade()

    assert tables(database) == before


def test_another_programs_tables_and_revision_are_not_taken_for_ours(database):
    add_foreign_revision(database, "0005")
    execute(database, FOREIGN_MESSAGES, "INSERT INTO chat_messages VALUES (1, 'theirs')")

    assert database.current() == ""
    with pytest.raises(migrations.ForeignTables):
        database.upgrade()

    assert revisions(database, "alembic_version") == ["0005"]
    assert database.read(lambda session: session.scalar(text("SELECT body FROM chat_messages"))) == "theirs"


def test_development_reports_another_programs_tables(database, url):
    execute(database, FOREIGN_MESSAGES)
    migrating = Database(url, migrate=True)

    with pytest.raises(UpstreamUnavailable) as raised:
        ConversationStore(migrating).check()

    assert "another program" in raised.value.detail
    migrating.close()


@pytest.mark.live
@pytest.mark.timeout(120)
def test_a_schema_of_our_own_needs_no_other_names(postgres):
    url = postgres.url()
    database, own = Database(url), Database(f"{url}?options=-csearch_path%3Dchat")
    execute(database, FOREIGN_MESSAGES, "CREATE SCHEMA chat")

    assert own.upgrade() == HEAD

    assert ConversationStore(own).create("ada", "Ours").title == "Ours"
    database.close()
    own.close()
