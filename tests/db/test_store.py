"""What is kept, for its owner alone; on each kind of database."""

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


def test_a_conversation_is_found_again_as_it_was_made(store):
    before = datetime.now(UTC) - timedelta(milliseconds=1)

    made = store.create("ada", "Title", "echo")

    found = store.get("ada", made.id)
    assert (found.id, found.title, found.agent_id) == (made.id, "Title", "echo")
    assert before <= found.created_at == made.created_at == found.updated_at <= datetime.now(UTC)
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
def test_only_what_is_given_is_changed(store, changes, title, agent_id):
    made = store.create("ada", "old", "echo")

    changed = store.update("ada", made.id, changes)

    assert (changed.title, changed.agent_id) == (title, agent_id)
    assert (store.get("ada", made.id).title, store.get("ada", made.id).agent_id) == (title, agent_id)


def test_somebody_elses_is_not_found(store):
    made = store.create("ada")
    message = store.add_message("ada", made.id, "mine")
    attempts = [
        lambda owner, id_: store.get(owner, id_),
        lambda owner, id_: store.update(owner, id_, {"title": "theirs"}),
        lambda owner, id_: store.delete(owner, id_),
        lambda owner, id_: store.add_message(owner, id_, "theirs"),
        lambda owner, id_: store.messages(owner, id_, 10),
        lambda owner, id_: store.edit_message(owner, id_, message.id, "theirs"),
    ]

    for attempt in attempts:
        for owner, conversation_id in (("eve", made.id), ("ada", uuid4())):
            with pytest.raises(NotFound):
                attempt(owner, conversation_id)

    assert store.recent("eve", 10).rows == []
    assert contents(store, made) == ["mine"]


def test_a_message_of_another_conversation_is_not_found(store):
    mine, other = store.create("ada"), store.create("ada")
    message = store.add_message("ada", other.id, "there")
    store.add_message("ada", mine.id, "here")

    with pytest.raises(NotFound):
        store.edit_message("ada", mine.id, message.id, "here")


def test_what_is_deleted_is_gone_with_all_that_was_said(store, database):
    made = store.create("ada")
    store.add_message("ada", made.id, "said")

    store.delete("ada", made.id)

    with pytest.raises(NotFound):
        store.get("ada", made.id)
    with pytest.raises(NotFound):
        store.delete("ada", made.id)
    assert database.read(lambda session: session.scalars(select(Message)).all()) == []


def test_the_newest_activity_comes_first_page_by_page(store, monkeypatch):
    clock = iter(range(1_000))
    monkeypatch.setattr(queries, "now", lambda: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(milliseconds=next(clock)))
    made = [store.create("ada", str(number)) for number in range(7)]
    store.create("eve", "not hers")
    store.add_message("ada", made[0].id, "again")
    message = store.add_message("ada", made[3].id, "again")
    store.edit_message("ada", made[3].id, message.id, "and again")

    pages, cursor = [], ""
    while cursor is not None:
        page = store.recent("ada", 3, cursor)
        pages.append([conversation.title for conversation in page.rows])
        cursor = page.next_cursor

    assert pages == [["3", "0", "6"], ["5", "4", "2"], ["1"]]


def test_conversations_of_one_moment_are_on_one_page_each(store, monkeypatch):
    monkeypatch.setattr(queries, "now", lambda: datetime(2024, 1, 1, tzinfo=UTC))
    made = {store.create("ada").id for _ in range(5)}

    seen, cursor = [], ""
    while cursor is not None:
        page = store.recent("ada", 2, cursor)
        seen += [conversation.id for conversation in page.rows]
        cursor = page.next_cursor

    assert len(seen) == 5
    assert set(seen) == made


def test_messages_come_in_the_order_they_were_said_page_by_page(store):
    made = store.create("ada")
    for number in range(5):
        store.add_message("ada", made.id, str(number))

    first = store.messages("ada", made.id, 2)
    second = store.messages("ada", made.id, 2, first.next_cursor)
    third = store.messages("ada", made.id, 2, second.next_cursor)

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
def test_a_cursor_that_is_none_is_refused(store, cursor):
    made = store.create("ada")

    with pytest.raises(InvalidRequest):
        store.recent("ada", 10, cursor)
    if cursor != encode(1):
        with pytest.raises(InvalidRequest):
            store.messages("ada", made.id, 10, cursor)


def test_a_cursor_from_the_end_of_time_is_one(store):
    assert store.recent("ada", 10, encode(10**14 - 1, uuid4())).rows == []


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("hello", "hello"),
        ("  hello\n\n there ", "hello there"),
        ("word " * 100, "word " * 10 + "word…"),
        ("x" * 100, "x" * 59 + "…"),
        ("x" * 60, "x" * 60),
    ],
)
def test_a_title_is_made_of_the_first_message(store, said, title):
    made, named = store.create("ada"), store.create("ada", "Named")

    for conversation in (made, named):
        store.add_message("ada", conversation.id, said)
        store.add_message("ada", conversation.id, "something else")

    assert store.get("ada", made.id).title == title == title_of(said)
    assert len(title) <= 60
    assert store.get("ada", named.id).title == "Named"


def test_an_edit_keeps_what_was_said(store):
    made = store.create("ada")
    said = store.add_message("ada", made.id, "said")

    edited = store.edit_message("ada", made.id, said.id, "meant")

    [kept] = store.messages("ada", made.id, 10).rows
    assert (kept.content, kept.edited_content, kept.edited_at) == ("said", "meant", edited.edited_at)
    assert kept.edited_at >= kept.created_at == said.created_at


def test_many_at_once_all_find_what_they_keep(store):
    def work(number):
        owner = f"user-{number % 4}"
        made = store.create(owner)
        for text in ("one", "two"):
            store.add_message(owner, made.id, text)
        store.update(owner, made.id, {"title": "t"})
        return contents(store, made, owner)

    assert in_parallel(16, work) == [["one", "two"]] * 16
    assert len(store.recent("user-0", 100).rows) == 4
