"""Conversations and messages in SQLite and PostgreSQL."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from bff.db import queries
from bff.db.models import Message
from bff.db.pagination import encode
from bff.db.store import ConversationStore, title_of
from bff.errors import InvalidRequest, NotFound
from tests.live import in_parallel


@pytest.fixture
def store(database):
    return ConversationStore(database)


def contents(store, conversation, owner="ada"):
    return [message.content for message in store.messages(owner, conversation.id, 100).rows]


def test_a_created_conversation_is_stored(store):
    before = datetime.now(UTC) - timedelta(milliseconds=1)

    conversation = store.create("ada", "Title", "echo")

    found = store.get("ada", conversation.id)
    assert (found.id, found.title, found.agent_id) == (conversation.id, "Title", "echo")
    assert before <= found.created_at == conversation.created_at == found.updated_at <= datetime.now(UTC)
    assert found.created_at.microsecond % 1000 == 0


@pytest.mark.parametrize(
    ("changes", "title", "agent_id"),
    [
        ({"title": "new"}, "new", "echo"),
        ({"agent_id": "broker"}, "old", "broker"),
        ({"title": None}, None, "echo"),
        ({"agent_id": None}, "old", None),
        ({"title": "new", "agent_id": "broker"}, "new", "broker"),
        ({}, "old", "echo"),
    ],
)
def test_an_update_changes_only_the_given_fields(store, changes, title, agent_id):
    conversation = store.create("ada", "old", "echo")

    changed = store.update("ada", conversation.id, changes)

    assert (changed.title, changed.agent_id) == (title, agent_id)
    assert (store.get("ada", conversation.id).title, store.get("ada", conversation.id).agent_id) == (title, agent_id)


def test_another_users_conversation_is_not_found(store):
    conversation = store.create("ada")
    message = store.add_message("ada", conversation.id, "mine")
    attempts = [
        lambda owner, id_: store.get(owner, id_),
        lambda owner, id_: store.update(owner, id_, {"title": "theirs"}),
        lambda owner, id_: store.delete(owner, id_),
        lambda owner, id_: store.add_message(owner, id_, "theirs"),
        lambda owner, id_: store.messages(owner, id_, 10),
        lambda owner, id_: store.edit_message(owner, id_, message.id, "theirs"),
    ]

    for attempt in attempts:
        for owner, conversation_id in (("eve", conversation.id), ("ada", uuid4())):
            with pytest.raises(NotFound):
                attempt(owner, conversation_id)

    assert store.recent("eve", 10).rows == []
    assert contents(store, conversation) == ["mine"]


def test_a_message_of_another_conversation_is_not_found(store):
    own, other = store.create("ada"), store.create("ada")
    message = store.add_message("ada", other.id, "there")
    store.add_message("ada", own.id, "here")

    with pytest.raises(NotFound):
        store.edit_message("ada", own.id, message.id, "here")


def test_deleting_a_conversation_deletes_its_messages(store, database):
    conversation = store.create("ada")
    store.add_message("ada", conversation.id, "said")

    store.delete("ada", conversation.id)

    with pytest.raises(NotFound):
        store.get("ada", conversation.id)
    with pytest.raises(NotFound):
        store.delete("ada", conversation.id)
    assert database.read(lambda session: session.scalars(select(Message)).all()) == []


def test_conversations_are_listed_by_last_activity(store, monkeypatch):
    clock = iter(range(1_000))
    monkeypatch.setattr(queries, "now", lambda: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(milliseconds=next(clock)))
    conversations = [store.create("ada", str(number)) for number in range(7)]
    store.create("eve", "not hers")
    store.add_message("ada", conversations[0].id, "again")
    message = store.add_message("ada", conversations[3].id, "again")
    store.edit_message("ada", conversations[3].id, message.id, "and again")

    pages, cursor = [], ""
    while cursor is not None:
        page = store.recent("ada", 3, cursor)
        pages.append([conversation.title for conversation in page.rows])
        cursor = page.next_cursor

    assert pages == [["3", "0", "6"], ["5", "4", "2"], ["1"]]


def test_conversations_of_the_same_time_are_listed_once(store, monkeypatch):
    monkeypatch.setattr(queries, "now", lambda: datetime(2024, 1, 1, tzinfo=UTC))
    conversations = {store.create("ada").id for _ in range(5)}

    seen, cursor = [], ""
    while cursor is not None:
        page = store.recent("ada", 2, cursor)
        seen += [conversation.id for conversation in page.rows]
        cursor = page.next_cursor

    assert len(seen) == 5
    assert set(seen) == conversations


def test_messages_are_listed_oldest_first(store):
    conversation = store.create("ada")
    for number in range(5):
        store.add_message("ada", conversation.id, str(number))

    first = store.messages("ada", conversation.id, 2)
    second = store.messages("ada", conversation.id, 2, first.next_cursor)
    third = store.messages("ada", conversation.id, 2, second.next_cursor)

    assert [[m.content for m in page.rows] for page in (first, second, third)] == [["0", "1"], ["2", "3"], ["4"]]
    assert third.next_cursor is None


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "é",
        "W10",
        "====",
        "bnVsbA",
        encode(1),
        encode(1, 2),
        encode(UUID(int=0), 1),
        encode(10**14 - 1, UUID(int=0), 3),
        "W" * 9999,
    ],
)
def test_an_invalid_cursor_is_refused(store, cursor):
    conversation = store.create("ada")

    with pytest.raises(InvalidRequest):
        store.recent("ada", 10, cursor)
    if cursor != encode(1):
        with pytest.raises(InvalidRequest):
            store.messages("ada", conversation.id, 10, cursor)


def test_a_cursor_with_the_latest_time_is_valid(store):
    assert store.recent("ada", 10, encode(10**14 - 1, uuid4())).rows == []


@pytest.mark.parametrize(
    ("original", "title"),
    [
        ("hello", "hello"),
        ("  hello\n\n there ", "hello there"),
        ("word " * 100, "word " * 10 + "word…"),
        ("x" * 100, "x" * 59 + "…"),
        ("x" * 60, "x" * 60),
    ],
)
def test_the_title_is_derived_from_the_first_message(store, original, title):
    untitled, named = store.create("ada"), store.create("ada", "Named")

    for conversation in (untitled, named):
        store.add_message("ada", conversation.id, original)
        store.add_message("ada", conversation.id, "something else")

    assert store.get("ada", untitled.id).title == title == title_of(original)
    assert len(title) <= 60
    assert store.get("ada", named.id).title == "Named"


def test_an_edit_keeps_the_original_text(store):
    conversation = store.create("ada")
    original = store.add_message("ada", conversation.id, "said")

    edited = store.edit_message("ada", conversation.id, original.id, "meant")

    [stored] = store.messages("ada", conversation.id, 10).rows
    assert (stored.content, stored.edited_content, stored.edited_at) == ("said", "meant", edited.edited_at)
    assert stored.edited_at >= stored.created_at == original.created_at


def test_concurrent_transactions_store_everything(store):
    def work(number):
        owner = f"user-{number % 4}"
        conversation = store.create(owner)
        for text in ("one", "two"):
            store.add_message(owner, conversation.id, text)
        store.update(owner, conversation.id, {"title": "t"})
        return contents(store, conversation, owner)

    assert in_parallel(16, work) == [["one", "two"]] * 16
    assert len(store.recent("user-0", 100).rows) == 4
