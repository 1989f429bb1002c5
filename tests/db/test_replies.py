"""Of one version of a question one reply, and what an agent is told; on each kind of database."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bff.db import history
from bff.db.database import Database
from bff.db.replies import Replies
from bff.db.store import ConversationStore
from bff.errors import InvalidRequest, NotFound
from bff.upstream.messages import ChatMessage
from tests.db.heard import heard
from tests.live import in_parallel


@pytest.fixture
def store(database):
    return ConversationStore(database)


@pytest.fixture
def replies(database):
    return Replies(database, 10**6)


@pytest.fixture
def asked(store):
    """A conversation and its one message."""
    conversation = store.create("ada")
    return conversation.id, store.add_message("ada", conversation.id, "one").id


def answer(replies, conversation_id, content, message_id=None, regenerate=""):
    question = replies.question("ada", conversation_id, message_id, regenerate)
    return replies.store("ada", conversation_id, question.id, question.version, regenerate, content)


def contents(store, conversation_id):
    return [message.content for message in store.messages("ada", conversation_id, 100).rows]


def is_answered(replies, conversation_id, message_id=None, regenerate=""):
    return replies.question("ada", conversation_id, message_id, regenerate).answered


def test_a_reply_is_stored_after_its_question(store, replies, asked):
    stored = answer(replies, asked[0], "reply")

    messages = store.messages("ada", asked[0], 10).rows
    assert [(m.id, m.role, m.content) for m in messages] == [(asked[1], "user", "one"), (stored.id, "assistant", "reply")]
    assert store.get("ada", asked[0]).updated_at == stored.created_at
    assert replies.task("ada", *asked, "").reply.id == stored.id


def test_a_second_reply_to_the_same_is_the_first(store, replies, asked):
    first = answer(replies, asked[0], "first")

    assert answer(replies, asked[0], "second").id == first.id
    assert contents(store, asked[0]) == ["one", "first"]


def test_of_many_that_store_at_once_one_does(url, database, store, asked):
    databases = [Database(url) for _ in range(3)]

    ids = in_parallel(9, lambda number: answer(Replies(databases[number % 3], 1), asked[0], f"reply {number}").id)

    assert len(set(ids)) == 1
    assert len(contents(store, asked[0])) == 2
    for other in databases:
        other.close()


def test_a_question_that_is_edited_after_its_reply_is_unanswered(store, replies, asked):
    answer(replies, asked[0], "to one")
    assert is_answered(replies, asked[0])

    for text in ("two", "three"):
        store.edit_message("ada", asked[0], asked[1], text)
        assert not is_answered(replies, asked[0])
        answer(replies, asked[0], f"to {text}")
        assert is_answered(replies, asked[0])

    assert contents(store, asked[0]) == ["one", "to one", "to two", "to three"]


def test_a_reply_to_an_older_version_answers_that_one(store, replies, asked):
    question = replies.question("ada", asked[0], None, "")
    store.edit_message("ada", asked[0], asked[1], "edited meanwhile")

    replies.store("ada", *asked, question.version, "", "to what it was")

    assert not is_answered(replies, asked[0])


def test_two_edits_at_one_moment_are_two_versions(store, replies, asked):
    versions = []
    for number in range(5):
        store.edit_message("ada", asked[0], asked[1], str(number))
        versions.append(replies.question("ada", asked[0], None, "").version)

    assert len(set(versions)) == 5


def test_a_further_reply_is_given_once_a_text(store, replies, asked):
    answer(replies, asked[0], "first")
    for text in ("a", "b"):
        assert not is_answered(replies, asked[0], regenerate=text)
        answer(replies, asked[0], text, regenerate=text)
        assert is_answered(replies, asked[0], regenerate=text)

    assert contents(store, asked[0]) == ["one", "first", "a", "b"]


def test_only_a_users_message_is_a_question(store, replies, asked):
    reply = answer(replies, asked[0], "reply")
    empty = store.create("ada")

    for conversation_id, message_id, error in (
        (asked[0], reply.id, InvalidRequest),
        (empty.id, None, InvalidRequest),
        (empty.id, asked[1], NotFound),
    ):
        with pytest.raises(error):
            replies.question("ada", conversation_id, message_id, "")
    with pytest.raises(NotFound):
        replies.task("eve", *asked, "")
    with pytest.raises(NotFound):
        replies.store("eve", *asked, 0, "", "theirs")


def test_nothing_is_stored_in_a_conversation_that_is_gone(store, replies, asked):
    store.delete("ada", asked[0])

    with pytest.raises(NotFound):
        replies.store("ada", *asked, 0, "", "late")


def test_an_agent_is_told_one_reply_a_question_the_newest(database, store, replies, asked):
    answer(replies, asked[0], "first")
    answer(replies, asked[0], "second", regenerate="again")
    store.add_message("ada", asked[0], "two")

    assert heard(database, asked[0]) == [
        ChatMessage("user", "one"),
        ChatMessage("assistant", "second"),
        ChatMessage("user", "two"),
    ]


def test_an_earlier_question_is_told_with_what_came_before_it(store, replies, asked):
    second = store.add_message("ada", asked[0], "two").id
    store.add_message("ada", asked[0], "three")
    answer(replies, asked[0], "to one, late", message_id=asked[1])
    answer(replies, asked[0], "to two", message_id=second)

    assert replies.task("ada", asked[0], second, "again").history == [
        ChatMessage("user", "one"),
        ChatMessage("assistant", "to one, late"),
        ChatMessage("user", "two"),
    ]
    assert replies.task("ada", *asked, "again").history == [ChatMessage("user", "one")]


def test_an_agent_is_told_what_was_meant(database, store, replies, asked):
    reply = answer(replies, asked[0], "reply")
    store.edit_message("ada", asked[0], reply.id, "corrected")
    store.edit_message("ada", asked[0], asked[1], "meant")
    store.add_message("ada", asked[0], "two")

    assert heard(database, asked[0]) == [
        ChatMessage("user", "meant"),
        ChatMessage("assistant", "corrected"),
        ChatMessage("user", "two"),
    ]


def test_an_agent_is_told_the_newest_turns_that_fit(database, store, replies, monkeypatch):
    conversation_id = store.create("ada").id
    for letter in "abcd":
        store.add_message("ada", conversation_id, letter * 10)
        answer(replies, conversation_id, letter.upper() * 10)

    def first_letters(characters):
        return "".join(said.content[0] for said in heard(database, conversation_id, characters=characters))

    assert first_letters(70) == "aAbBcCd"
    assert first_letters(69) == "bBcCd"
    assert first_letters(30) == "cCd"
    assert first_letters(29) == "d"
    assert first_letters(1) == "d"
    monkeypatch.setattr(history, "MAX_TURNS", 2)
    assert first_letters(10**6) == "bBcCd"


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=50)
steps = st.lists(st.tuples(st.none() | st.integers(0, 9), texts, st.booleans()), min_size=1, max_size=12)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_history_is_what_was_meant_in_the_order_it_was_said(database, store, replies, steps):
    conversation_id = store.create("ada").id
    questions: list = []
    meant: list[list[str]] = []

    for number, text, answered in steps:
        if number is None or not questions:
            questions.append(store.add_message("ada", conversation_id, text).id)
            meant.append([text])
        else:
            store.edit_message("ada", conversation_id, questions[number % len(questions)], text)
            meant[number % len(questions)][0] = text
        if answered:
            answer(replies, conversation_id, f"to {text}", questions[-1], regenerate=str(len(questions)) + text)
            if len(meant[-1]) == 1 or meant[-1][1] != f"to {text}":
                newest = replies.task("ada", conversation_id, questions[-1], str(len(questions)) + text).reply
                meant[-1][1:] = [newest.content] if newest else []

    *before, last = meant
    assert [said.content for said in heard(database, conversation_id)] == [text for turn in before for text in turn] + last[:1]
