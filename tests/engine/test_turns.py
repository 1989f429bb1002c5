"""Turns whose reply is already stored, or is stored by another run meanwhile."""

import pytest

from bff.auth.identity import Identity
from bff.db.database import Database
from bff.db.direct_chat import DirectChat
from bff.db.models import Message
from bff.db.replies import Replies
from bff.db.responses import ResponseStore
from bff.db.store import ConversationStore
from bff.engine.agents.echo import Echo
from bff.engine.turns import ConversationTurn, DirectTurn, Stores, Turns
from bff.errors import Interrupted
from tests.live import create_tables

ADA = Identity("ada", "home")


@pytest.fixture
def database(tmp_path):
    url = f"sqlite:///{tmp_path}/chat.db"
    create_tables(url)
    database = Database(url)
    yield database
    database.close()


def make_turn(database: Database, *, started: bool = False) -> tuple[Turns, ConversationTurn]:
    store, agent = ConversationStore(database), Echo(0)
    conversation = store.create(ADA.owner)
    question = store.add_message(ADA.owner, conversation.id, "a question")
    stores = Stores(Replies(database, 1000), DirectChat(database, 1000), ResponseStore(database, 1000))
    turn = ConversationTurn(ADA, conversation.id, question.id, "", "", started)
    return Turns(stores, {agent.id: agent}, agent), turn


def store_reply(database: Database, turn: ConversationTurn, text: str = "a reply") -> Message:
    return Replies(database, 1000).store(*turn.key, 0, "", text)


@pytest.mark.parametrize(("started", "texts"), [(False, ["a reply"]), (True, [])])
def test_a_stored_reply_is_sent_to_readers_that_have_no_text(database, waiter, started, texts):
    turns, turn = make_turn(database, started=started)
    stored = store_reply(database, turn)
    contents = [content for content in turns.conversation(turn, waiter) if content]

    assert [content["text"] for content in contents[:-1]] == texts
    assert contents[-1]["type"] == "complete"
    assert contents[-1]["response"]["message_id"] == str(stored.id)


def test_a_run_that_is_overtaken_by_another_one_is_interrupted(database, waiter):
    turns, turn = make_turn(database)
    contents = turns.conversation(turn, waiter)
    assert next(content for content in contents if content)["type"] == "progress"
    store_reply(database, turn, "another reply")
    with pytest.raises(Interrupted):
        list(contents)


def test_a_direct_turn_that_is_overtaken_by_another_one_is_interrupted(database, waiter):
    turns, _ = make_turn(database)
    turn = DirectTurn(ADA, "turn-1", "a question", spoken=False, audio_url_prefix="", started=False)
    contents = turns.direct(turn, waiter)
    assert next(content for content in contents if content)["type"] == "progress"
    turns.direct_chat.store(ADA.owner, turn.turn_id, turn.question, "another reply", spoken=False)
    with pytest.raises(Interrupted):
        list(contents)
