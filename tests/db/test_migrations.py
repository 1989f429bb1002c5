"""Up and down, from empty and from each revision, on each kind of database."""

import threading
import time
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text

from bff.db import migrations
from bff.db.database import Database
from bff.db.models import Base
from bff.db.replies import Replies
from bff.db.store import ConversationStore
from tests.db.heard import heard
from tests.live import in_parallel

REVISIONS = ["0001", "0002", "0003", "0004"]
SAID = datetime(2024, 2, 29, 12, 30, 15, 123000, tzinfo=UTC)


@pytest.fixture
def database(url):
    """Without any tables yet."""
    database = Database(url)
    yield database
    database.close()


def tables(database: Database) -> set[str]:
    return database.read(lambda session: set(inspect(session.connection()).get_table_names())) - {"alembic_version"}


def keep_an_old_message(database: Database, url: str) -> tuple[UUID, UUID]:
    """As revision 1 knew them. SQLite has no UUIDs and no time zones."""
    conversation_id, message_id = uuid4(), uuid4()
    on_sqlite = url.startswith("sqlite")
    values = {
        "id": conversation_id.hex if on_sqlite else str(conversation_id),
        "message": message_id.hex if on_sqlite else str(message_id),
        "said": str(SAID.replace(tzinfo=None) if on_sqlite else SAID),
    }
    conversation = (
        "INSERT INTO chat_conversations (id, owner_id, title, created_at, updated_at) VALUES (:id, 'ada', 'Old', :said, :said)"
    )
    message = (
        "INSERT INTO chat_messages (id, conversation_id, role, content, regenerate, created_at)"
        " VALUES (:message, :id, 'user', 'kept', '', :said)"
    )

    database.write(lambda session: [session.execute(text(statement), values) for statement in (conversation, message)])
    return conversation_id, message_id


def test_the_tables_are_what_the_models_say(database):
    assert database.current() == ""
    assert database.upgrade() == REVISIONS[-1] == database.current()

    def differences(session):
        return compare_metadata(MigrationContext.configure(session.connection()), Base.metadata)

    assert database.read(differences) == []


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_revision_leads_up_and_down(database, revision):
    assert database.upgrade(revision) == revision
    assert database.upgrade() == REVISIONS[-1]

    assert database.downgrade(revision) == revision
    assert database.downgrade("base") == ""
    assert tables(database) == set()

    assert database.upgrade() == REVISIONS[-1]
    assert tables(database) == {"chat_conversations", "chat_messages", "chat_preferences"}


def test_upgrading_what_is_up_to_date_changes_nothing(database):
    database.upgrade()
    created = ConversationStore(database).create("ada", "Kept")

    assert database.upgrade() == REVISIONS[-1]

    assert ConversationStore(database).get("ada", created.id).title == "Kept"


def test_what_revision_1_kept_is_there_and_can_be_edited(database, url):
    database.upgrade("0001")
    conversation_id, message_id = keep_an_old_message(database, url)

    database.upgrade()

    store = ConversationStore(database)
    [message] = store.messages("ada", conversation_id, 10).rows
    assert (message.id, message.content, message.edited_content, message.edited_at) == (message_id, "kept", None, None)
    assert message.created_at == SAID
    store.edit_message("ada", conversation_id, message_id, "edited")
    assert [one.content for one in heard(database, conversation_id)] == ["edited"]


def test_back_at_revision_1_the_edits_are_gone_and_what_was_said_is_not(database):
    database.upgrade()
    store = ConversationStore(database)
    conversation = store.create("ada")
    message = store.add_message("ada", conversation.id, "said")
    store.edit_message("ada", conversation.id, message.id, "edited")

    database.downgrade("0001")
    database.upgrade()

    [one] = store.messages("ada", conversation.id, 10).rows
    assert (one.content, one.edited_content, one.edited_at) == ("said", None, None)


def test_revision_3_finds_which_version_was_answered(database):
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


def test_back_before_revision_3_nothing_that_was_said_is_lost(database):
    database.upgrade()
    store, replies = ConversationStore(database), Replies(database, 1000)
    conversation_id = store.create("ada").id
    question = store.add_message("ada", conversation_id, "one").id
    for words in ("two", "three"):
        store.edit_message("ada", conversation_id, question, words)
        version = replies.question("ada", conversation_id, question, "").version
        replies.store("ada", conversation_id, question, version, "", f"to {words}")

    database.downgrade("0002")
    database.upgrade()

    assert [m.content for m in store.messages("ada", conversation_id, 100).rows] == ["one", "to two", "to three"]


def test_a_migration_that_breaks_leaves_nothing_behind(database):
    def break_off(connection):
        migrations.upgrade(connection, "0001")
        raise RuntimeError("broken off")

    with pytest.raises(RuntimeError):
        database._migrated(break_off)

    assert (database.current(), tables(database)) == ("", set())


def test_one_that_waits_for_another_longer_than_a_query_may_take_goes_on_after_it(url, monkeypatch):
    monkeypatch.setattr("bff.db.database.STATEMENT_MILLISECONDS", 100)
    first, second = Database(url), Database(url)
    begun = threading.Event()

    def slowly(connection):
        migrations.upgrade(connection)
        begun.set()
        time.sleep(0.5)  # The other's wait, five times as long as a query may take.

    def upgrade(number):
        if number == 0:
            return first._migrated(slowly)
        assert begun.wait(15)
        return second.upgrade()

    assert in_parallel(2, upgrade) == [REVISIONS[-1]] * 2
    for database in (first, second):
        database.close()


def test_several_that_upgrade_at_once_do_it_once(url):
    databases = [Database(url) for _ in range(4)]

    assert in_parallel(4, lambda number: databases[number].upgrade()) == [REVISIONS[-1]] * 4

    for database in databases:
        database.close()
