"""Turns of conversations whose reply is already stored."""

import pytest

from bff.auth.identity import Identity
from bff.db.database import Database
from bff.db.direct_chat import DirectChat
from bff.db.replies import Replies
from bff.db.responses import ResponseStore
from bff.db.store import ConversationStore
from bff.engine.agents.echo import Echo
from bff.engine.turns import ConversationTurn, Stores, Turns
from tests.live import create_tables

ADA = Identity("ada", "home")


@pytest.fixture
def database(tmp_path):
    url = f"sqlite:///{tmp_path}/chat.db"
    create_tables(url)
    database = Database(url)
    yield database
    database.close()


@pytest.mark.parametrize(("started", "texts"), [(False, ["a reply"]), (True, [])])
def test_a_stored_reply_is_sent_to_readers_that_have_no_text(database, waiter, started, texts):
    store, replies, agent = ConversationStore(database), Replies(database, 1000), Echo(0)
    conversation = store.create(ADA.owner)
    question = store.add_message(ADA.owner, conversation.id, "a question")
    stored = replies.store(ADA.owner, conversation.id, question.id, 0, "", "a reply")
    stores = Stores(replies, DirectChat(database, 1000), ResponseStore(database, 1000))
    turns = Turns(stores, {agent.id: agent}, agent)

    turn = ConversationTurn(ADA, conversation.id, question.id, "", "", started)
    contents = [content for content in turns.conversation(turn, waiter) if content]

    assert [content["text"] for content in contents[:-1]] == texts
    assert contents[-1]["type"] == "complete"
    assert contents[-1]["response"]["message_id"] == str(stored.id)
