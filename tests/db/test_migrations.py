"""Upgrades and downgrades from and to each revision, on SQLite and PostgreSQL."""

import threading
import time
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from bff.db import migrations
from bff.db.database import Database
from bff.db.direct_chat import DirectChat
from bff.db.migrations.version_table import VERSION_TABLE
from bff.db.models import Base
from bff.db.replies import Replies
from bff.db.store import ConversationStore
from tests.db.agent_history import agent_history
from tests.live import in_parallel

REVISIONS = ["0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008"]
CREATED_AT = datetime(2024, 2, 29, 12, 30, 15, 123000, tzinfo=UTC)


@pytest.fixture
def database(url):
    """An empty database."""
    database = Database(url)
    yield database
    database.close()


def tables(database: Database) -> set[str]:
    return database.read(lambda session: set(inspect(session.connection()).get_table_names())) - {
        "alembic_version",
        "chat_alembic_version",
    }


def insert_message_at_revision_1(database: Database, url: str) -> tuple[UUID, UUID]:
    """Returns the ids of conversation and message. SQLite has no UUIDs and no time zones."""
    conversation_id, message_id = uuid4(), uuid4()
    on_sqlite = url.startswith("sqlite")
    values = {
        "id": conversation_id.hex if on_sqlite else str(conversation_id),
        "message": message_id.hex if on_sqlite else str(message_id),
        "created_at": str(CREATED_AT.replace(tzinfo=None) if on_sqlite else CREATED_AT),
    }
    conversation = (
        "INSERT INTO chat_conversations (id, owner_id, title, created_at, updated_at)"
        " VALUES (:id, 'ada', 'Old', :created_at, :created_at)"
    )
    message = (
        "INSERT INTO chat_messages (id, conversation_id, role, content, regenerate, created_at)"
        " VALUES (:message, :id, 'user', 'kept', '', :created_at)"
    )

    database.write(lambda session: [session.execute(text(statement), values) for statement in (conversation, message)])
    return conversation_id, message_id


def test_the_migrated_tables_match_the_models(database):
    assert database.current() == ""
    assert database.upgrade() == REVISIONS[-1] == database.current()

    def differences(session):
        context = MigrationContext.configure(session.connection(), opts={"version_table": VERSION_TABLE})
        return compare_metadata(context, Base.metadata)

    assert database.read(differences) == []


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_revision_can_be_upgraded_and_downgraded(database, revision):
    assert database.upgrade(revision) == revision
    assert database.upgrade() == REVISIONS[-1]

    assert database.downgrade(revision) == revision
    assert database.downgrade("base") == ""
    assert tables(database) == set()

    assert database.upgrade() == REVISIONS[-1]
    assert tables(database) == {"chat_conversations", "chat_messages", "chat_preferences", "chat_responses"}


def test_the_newest_revision_is_the_head_of_the_scripts():
    scripts = ScriptDirectory(str(migrations.VERSIONS.parent))

    assert migrations.newest_revision() == scripts.get_current_head()


def test_upgrading_an_up_to_date_database_changes_nothing(database):
    database.upgrade()
    created = ConversationStore(database).create("ada", "Kept")

    assert database.upgrade() == REVISIONS[-1]

    assert ConversationStore(database).get("ada", created.id).title == "Kept"


def test_messages_of_revision_1_survive_the_upgrade_and_can_be_edited(database, url):
    database.upgrade("0001")
    conversation_id, message_id = insert_message_at_revision_1(database, url)

    database.upgrade()

    store = ConversationStore(database)
    [message] = store.messages("ada", conversation_id, 10).rows
    assert (message.id, message.content, message.edited_content, message.edited_at) == (message_id, "kept", None, None)
    assert message.created_at == CREATED_AT
    store.edit_message("ada", conversation_id, message_id, "edited")
    assert [one.content for one in agent_history(database, conversation_id)] == ["edited"]


def test_a_downgrade_to_revision_1_loses_edits_only(database):
    database.upgrade()
    store = ConversationStore(database)
    conversation = store.create("ada")
    message = store.add_message("ada", conversation.id, "said")
    store.edit_message("ada", conversation.id, message.id, "edited")

    database.downgrade("0001")
    database.upgrade()

    [one] = store.messages("ada", conversation.id, 10).rows
    assert (one.content, one.edited_content, one.edited_at) == ("said", None, None)


def test_revision_3_sets_the_version_that_a_reply_answers(database):
    database.upgrade()
    store, replies = ConversationStore(database), Replies(database, 1000)
    conversation_id = store.create("ada").id
    unedited, edited_before, edited_after = (store.add_message("ada", conversation_id, text).id for text in "abc")
    store.edit_message("ada", conversation_id, edited_before, "B")
    for question in (unedited, edited_before, edited_after):
        version = replies.question("ada", conversation_id, question, "").version
        replies.store("ada", conversation_id, question, version, "", "reply")
    time.sleep(0.002)
    store.edit_message("ada", conversation_id, edited_after, "C")

    database.downgrade("0002")
    database.upgrade()

    answered = [replies.question("ada", conversation_id, id_, "").answered for id_ in (unedited, edited_before, edited_after)]
    assert answered == [True, True, False]
    assert len(store.messages("ada", conversation_id, 100).rows) == 6


def test_a_downgrade_below_revision_3_loses_no_messages(database):
    database.upgrade()
    store, replies = ConversationStore(database), Replies(database, 1000)
    conversation_id = store.create("ada").id
    question = store.add_message("ada", conversation_id, "one").id
    for edited in ("two", "three"):
        store.edit_message("ada", conversation_id, question, edited)
        version = replies.question("ada", conversation_id, question, "").version
        replies.store("ada", conversation_id, question, version, "", f"to {edited}")

    database.downgrade("0002")
    database.upgrade()

    assert [m.content for m in store.messages("ada", conversation_id, 100).rows] == ["one", "to two", "to three"]


def test_revision_7_makes_existing_messages_one_branch(database):
    database.upgrade()
    store, replies, direct = ConversationStore(database), Replies(database, 1000), DirectChat(database, 1000)
    conversations = [store.create("ada").id for _ in range(2)]
    empty = store.create("ada").id
    for name in ("one", "two"):  # The conversations' messages alternate.
        for id_ in conversations:
            question = store.add_message("ada", id_, name).id
            replies.store("ada", id_, question, 0, "", f"to {name}")
            replies.store("ada", id_, question, 0, "again", f"to {name} again")
        direct.store("ada", name, name, "direct", spoken=False)

    database.downgrade("0006")
    database.upgrade()

    texts = ["one", "to one", "to one again", "two", "to two", "to two again"]
    for id_ in conversations:
        rows = store.messages("ada", id_, 100).rows
        assert [row.content for row in rows] == texts
        assert [row.parent_id for row in rows] == [None, *(row.id for row in rows[:-1])]
        assert store.get("ada", id_).current_message_id == rows[-1].id
        assert [message.content for message in agent_history(database, id_)] == ["one", "to one again", "two"]
    assert store.get("ada", empty).current_message_id is None
    assert len(direct.task("ada", "next", "three").history) == 5


def test_a_failed_migration_is_rolled_back(database):
    def fail(connection):
        migrations.upgrade(connection, "0001")
        raise RuntimeError("failed")

    with pytest.raises(RuntimeError):
        database._run_migration(fail)

    assert (database.current(), tables(database)) == ("", set())


def test_waiting_for_another_migration_has_no_statement_timeout(url, monkeypatch):
    monkeypatch.setattr("bff.db.database.STATEMENT_TIMEOUT_MILLISECONDS", 100)
    first, second = Database(url), Database(url)
    entered = threading.Event()

    def migrate_slowly(connection):
        migrations.upgrade(connection)
        entered.set()
        time.sleep(0.5)  # Five times the statement timeout.

    def upgrade(number):
        if number == 0:
            return first._run_migration(migrate_slowly)
        assert entered.wait(15)
        return second.upgrade()

    assert in_parallel(2, upgrade) == [REVISIONS[-1]] * 2
    for database in (first, second):
        database.close()


def test_concurrent_upgrades_run_once(url):
    databases = [Database(url) for _ in range(4)]

    assert in_parallel(4, lambda number: databases[number].upgrade()) == [REVISIONS[-1]] * 4

    for database in databases:
        database.close()
