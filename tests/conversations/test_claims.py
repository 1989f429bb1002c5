"""One reply at a time, once a question, and nobody's claim for ever; on each kind of database."""

import pytest

from bff.agents import Said
from bff.conversations.claims import Claims
from bff.conversations.database import Database
from bff.conversations.store import ConversationStore
from bff.errors import Busy, Interrupted, InvalidRequest, NotFound
from tests.live import eventually, in_parallel

SHORT = 0.3


@pytest.fixture
def store(database):
    return ConversationStore(database)


@pytest.fixture
def claims(database):
    return Claims(database, 60)


@pytest.fixture
def asked(store):
    """A conversation and its one message."""
    conversation = store.create("ada")
    return conversation.id, store.add_message("ada", conversation.id, "one").id


def test_a_reply_is_kept_beside_its_question(store, claims, asked):
    question = claims.claim("ada", asked[0])

    kept = claims.keep(question, "reply")

    assert question.history == [Said("user", "one")]
    messages = store.messages("ada", asked[0], 10).rows
    assert [(m.id, m.role, m.content) for m in messages] == [(asked[1], "user", "one"), (kept.id, "assistant", "reply")]
    assert store.get("ada", asked[0]).updated_at == kept.created_at


def test_a_second_claim_is_refused_until_the_first_is_released(claims, asked):
    first = claims.claim("ada", asked[0])

    with pytest.raises(Busy):
        claims.claim("ada", asked[0])
    claims.release(first)
    claims.release(first)

    assert claims.claim("ada", asked[0]).claim != first.claim


def test_of_many_that_claim_at_once_one_has_it(url, database, asked):
    databases = [Database(url) for _ in range(3)]

    def claim(number):
        try:
            return Claims(databases[number % 3], 60).claim("ada", asked[0])
        except Busy:
            return None

    won = [question for question in in_parallel(9, claim) if question is not None]

    assert len(won) == 1
    for other in databases:
        other.close()


def test_a_claim_that_is_not_renewed_ends_by_itself_and_its_late_reply_is_harmless(store, database, asked):
    crashed = Claims(database, SHORT).claim("ada", asked[0])
    next_one = eventually(lambda: try_to(Claims(database, 60), asked[0]), 20)

    with pytest.raises(Interrupted):
        Claims(database, 60).keep(crashed, "late")
    Claims(database, 60).release(crashed)
    with pytest.raises(Busy):
        Claims(database, 60).claim("ada", asked[0])
    Claims(database, 60).keep(next_one, "in time")

    assert [m.content for m in store.messages("ada", asked[0], 10).rows] == ["one", "in time"]


def try_to(claims, conversation_id):
    try:
        return claims.claim("ada", conversation_id)
    except Busy:
        return None


def test_renewing_tells_which_claims_still_hold(store, claims, asked):
    other = store.create("ada")
    store.add_message("ada", other.id, "other")
    kept, deleted = claims.claim("ada", asked[0]), claims.claim("ada", other.id)

    both = {kept.claim: asked[0], deleted.claim: other.id}

    assert claims.renew(both) == {kept.claim, deleted.claim}
    store.delete("ada", other.id)
    assert claims.renew(both) == {kept.claim}

    with pytest.raises(Interrupted):
        claims.keep(deleted, "to nobody")


def test_an_answered_message_is_not_answered_again(store, claims, asked):
    kept = claims.keep(claims.claim("ada", asked[0]), "reply")

    assert claims.claim("ada", asked[0]) is None
    assert claims.claim("ada", asked[0], asked[1]) is None

    further = store.add_message("ada", asked[0], "two")
    assert claims.claim("ada", asked[0], seen=kept.id) is None
    assert claims.claim("ada", asked[0], asked[1]) is None
    question = claims.claim("ada", asked[0], seen=further.id)
    assert (question.message_id, len(question.history)) == (further.id, 3)


def test_a_further_reply_is_given_once_a_text(store, claims, asked):
    claims.keep(claims.claim("ada", asked[0]), "first")

    claims.keep(claims.claim("ada", asked[0], regenerate="a"), "second")
    assert claims.claim("ada", asked[0], regenerate="a") is None
    claims.keep(claims.claim("ada", asked[0], regenerate="b"), "third")

    assert [m.content for m in store.messages("ada", asked[0], 10).rows] == ["one", "first", "second", "third"]


def test_an_earlier_message_is_answered_with_what_was_said_up_to_it(store, claims, asked):
    claims.keep(claims.claim("ada", asked[0]), "reply")
    store.add_message("ada", asked[0], "two")
    store.edit_message("ada", asked[0], asked[1], "edited")

    again = claims.claim("ada", asked[0], asked[1], "again")

    assert again.history == [Said("user", "edited")]
    claims.keep(again, "another")
    assert [m.content for m in store.messages("ada", asked[0], 10).rows] == ["one", "reply", "two", "another"]
    assert claims.claim("ada", asked[0]).history == [
        Said("user", "edited"),
        Said("assistant", "reply"),
        Said("user", "two"),
    ]


def test_only_a_users_message_is_a_question(store, claims, asked):
    reply = claims.keep(claims.claim("ada", asked[0]), "reply")
    empty = store.create("ada")

    with pytest.raises(InvalidRequest):
        claims.claim("ada", asked[0], reply.id)
    with pytest.raises(InvalidRequest):
        claims.claim("ada", empty.id)
    with pytest.raises(NotFound):
        claims.claim("ada", empty.id, asked[1])
