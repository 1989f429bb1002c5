"""Stored replies and the history for an agent, on SQLite and PostgreSQL."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event

from bff.db import history
from bff.db.database import Database
from bff.db.direct_chat import DirectChat
from bff.db.replies import Replies
from bff.db.store import ConversationStore
from bff.errors import InvalidRequest, NotFound
from bff.upstream.messages import ChatMessage
from tests.db.agent_history import agent_history
from tests.live import in_parallel


@pytest.fixture
def store(database):
    return ConversationStore(database)


@pytest.fixture
def replies(database):
    return Replies(database, 10**6)


@pytest.fixture
def first_question(store):
    """The ids of a conversation and of its only message."""
    conversation = store.create("ada")
    return conversation.id, store.add_message("ada", conversation.id, "one").id


def store_reply(replies, conversation_id, content, message_id=None, regenerate=""):
    question = replies.question("ada", conversation_id, message_id, regenerate)
    return replies.store("ada", conversation_id, question.id, question.version, regenerate, content)


def contents(store, conversation_id):
    """Of all branches."""
    return [message.content for message in store.all_messages("ada", conversation_id, 100).rows]


def is_answered(replies, conversation_id, message_id=None, regenerate=""):
    return replies.question("ada", conversation_id, message_id, regenerate).answered


def test_a_reply_is_stored_after_its_question(store, replies, first_question):
    stored = store_reply(replies, first_question[0], "reply")

    messages = store.messages("ada", first_question[0], 10).rows
    assert [(m.id, m.role, m.content) for m in messages] == [
        (first_question[1], "user", "one"),
        (stored.id, "assistant", "reply"),
    ]
    assert store.get("ada", first_question[0]).updated_at == stored.created_at
    assert replies.task("ada", *first_question, "").reply.id == stored.id


def test_a_second_reply_to_a_question_is_not_stored(store, replies, first_question):
    first = store_reply(replies, first_question[0], "first")

    assert store_reply(replies, first_question[0], "second").id == first.id
    assert contents(store, first_question[0]) == ["one", "first"]


def test_concurrent_stores_keep_one_reply(url, database, store, first_question):
    databases = [Database(url) for _ in range(3)]

    ids = in_parallel(9, lambda number: store_reply(Replies(databases[number % 3], 1), first_question[0], f"reply {number}").id)

    assert len(set(ids)) == 1
    assert len(contents(store, first_question[0])) == 2
    for other in databases:
        other.close()


def test_a_question_edited_after_its_reply_is_unanswered(store, replies, first_question):
    store_reply(replies, first_question[0], "to one")
    assert is_answered(replies, first_question[0])

    for text in ("two", "three"):
        store.edit_message("ada", first_question[0], first_question[1], text)
        assert not is_answered(replies, first_question[0])
        store_reply(replies, first_question[0], f"to {text}")
        assert is_answered(replies, first_question[0])

    assert contents(store, first_question[0]) == ["one", "to one", "to two", "to three"]


def test_a_reply_answers_the_version_it_was_produced_for(store, replies, first_question):
    question = replies.question("ada", first_question[0], None, "")
    store.edit_message("ada", first_question[0], first_question[1], "edited meanwhile")

    replies.store("ada", *first_question, question.version, "", "to what it was")

    assert not is_answered(replies, first_question[0])


def test_edits_within_a_millisecond_have_different_versions(store, replies, first_question):
    versions = []
    for number in range(5):
        store.edit_message("ada", first_question[0], first_question[1], str(number))
        versions.append(replies.question("ada", first_question[0], None, "").version)

    assert len(set(versions)) == 5


def test_each_regenerate_text_has_one_reply(store, replies, first_question):
    store_reply(replies, first_question[0], "first")
    for text in ("a", "b"):
        assert not is_answered(replies, first_question[0], regenerate=text)
        store_reply(replies, first_question[0], text, regenerate=text)
        assert is_answered(replies, first_question[0], regenerate=text)

    assert contents(store, first_question[0]) == ["one", "first", "a", "b"]


def test_only_a_users_message_can_be_answered(store, replies, first_question):
    reply = store_reply(replies, first_question[0], "reply")
    empty = store.create("ada")

    for conversation_id, message_id, error in (
        (first_question[0], reply.id, InvalidRequest),
        (empty.id, None, InvalidRequest),
        (empty.id, first_question[1], NotFound),
    ):
        with pytest.raises(error):
            replies.question("ada", conversation_id, message_id, "")
    with pytest.raises(NotFound):
        replies.task("eve", *first_question, "")
    with pytest.raises(NotFound):
        replies.store("eve", *first_question, 0, "", "theirs")


def test_no_reply_is_stored_in_a_deleted_conversation(store, replies, first_question):
    store.delete("ada", first_question[0])

    with pytest.raises(NotFound):
        replies.store("ada", *first_question, 0, "", "late")


def test_history_has_the_newest_reply_of_each_question(database, store, replies, first_question):
    store_reply(replies, first_question[0], "first")
    store_reply(replies, first_question[0], "second", regenerate="again")
    store.add_message("ada", first_question[0], "two")

    assert agent_history(database, first_question[0]) == [
        ChatMessage("user", "one"),
        ChatMessage("assistant", "second"),
        ChatMessage("user", "two"),
    ]


def test_history_ends_at_the_question(store, replies, first_question):
    second = store.add_message("ada", first_question[0], "two").id
    store.add_message("ada", first_question[0], "three")
    store_reply(replies, first_question[0], "to one, late", message_id=first_question[1])
    store_reply(replies, first_question[0], "to two", message_id=second)

    assert replies.task("ada", first_question[0], second, "again").history == [
        ChatMessage("user", "one"),
        ChatMessage("assistant", "to one, late"),
        ChatMessage("user", "two"),
    ]
    assert replies.task("ada", *first_question, "again").history == [ChatMessage("user", "one")]


def test_history_has_the_edited_texts(database, store, replies, first_question):
    reply = store_reply(replies, first_question[0], "reply")
    store.edit_message("ada", first_question[0], reply.id, "corrected")
    store.edit_message("ada", first_question[0], first_question[1], "meant")
    store.add_message("ada", first_question[0], "two")

    assert agent_history(database, first_question[0]) == [
        ChatMessage("user", "meant"),
        ChatMessage("assistant", "corrected"),
        ChatMessage("user", "two"),
    ]


def test_history_has_the_newest_turns_that_fit(database, store, replies, monkeypatch):
    conversation_id = store.create("ada").id
    for letter in "abcd":
        store.add_message("ada", conversation_id, letter * 10)
        store_reply(replies, conversation_id, letter.upper() * 10)

    def first_letters(characters):
        return "".join(message.content[0] for message in agent_history(database, conversation_id, characters=characters))

    assert first_letters(70) == "aAbBcCd"
    assert first_letters(69) == "bBcCd"
    assert first_letters(30) == "cCd"
    assert first_letters(29) == "d"
    assert first_letters(1) == "d"
    monkeypatch.setattr(history, "MAX_TURNS", 2)
    assert first_letters(10**6) == "bBcCd"


def test_histories_of_many_lengths_share_statements(database):
    chat, statements = DirectChat(database, 100_000), set()

    def record(_connection, _cursor, statement, *_) -> None:
        statements.add(statement)

    event.listen(Engine, "before_cursor_execute", record)
    try:
        for number in range(40):
            chat.store("ada", f"turn-{number}", "question", "reply", spoken=False)
            assert len(chat.task("ada", "next", "question").history) == 2 * number + 3
    finally:
        event.remove(Engine, "before_cursor_execute", record)

    assert len(statements) < 40, "a statement for each power of two"


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=50)
steps = st.lists(st.tuples(st.none() | st.integers(0, 9), texts, st.booleans()), min_size=1, max_size=12)


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_history_has_the_edited_texts_in_their_order(database, store, replies, steps):
    conversation_id = store.create("ada").id
    questions: list = []
    expected: list[list[str]] = []

    for number, text, answered in steps:
        if number is None or not questions:
            questions.append(store.add_message("ada", conversation_id, text).id)
            expected.append([text])
        else:
            store.edit_message("ada", conversation_id, questions[number % len(questions)], text)
            expected[number % len(questions)][0] = text
        if answered:
            store_reply(replies, conversation_id, f"to {text}", questions[-1], regenerate=str(len(questions)) + text)
            if len(expected[-1]) == 1 or expected[-1][1] != f"to {text}":
                newest = replies.task("ada", conversation_id, questions[-1], str(len(questions)) + text).reply
                expected[-1][1:] = [newest.content] if newest else []

    *before, last = expected
    assert [message.content for message in agent_history(database, conversation_id)] == [
        text for turn in before for text in turn
    ] + last[:1]
