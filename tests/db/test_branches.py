"""Branches of conversations, on SQLite and PostgreSQL."""

from uuid import uuid4

import pytest

from bff.db import history
from bff.db.replies import Replies
from bff.db.store import ConversationStore, Parent
from bff.errors import InvalidRequest, NotFound
from tests.live import in_parallel


class Chat:
    """One conversation of Ada's. Messages are named by their text."""

    def __init__(self, database):
        self.store = ConversationStore(database)
        self.replies = Replies(database, 10**6)
        self.id = self.store.create("ada").id
        self.ids = {}

    def ask(self, text, *parent):
        """`parent`: the name of a message, or None; the current message if omitted."""
        parents = [Parent(self.ids.get(name)) for name in parent]
        self.ids[text] = self.store.add_message("ada", self.id, text, *parents).id

    def reply(self, question, text, regenerate=""):
        version = self.replies.question("ada", self.id, self.ids[question], "").version
        self.ids[text] = self.replies.store("ada", self.id, self.ids[question], version, regenerate, text).id

    def switch(self, name):
        self.store.update("ada", self.id, {"current_message_id": self.ids.get(name)})

    def current(self):
        return [message.content for message in self.store.messages("ada", self.id, 100).rows]

    def tree(self):
        """The parent's name of each message."""
        names = {id_: name for name, id_ in self.ids.items()} | {None: None}
        return {row.content: names[row.parent_id] for row in self.store.all_messages("ada", self.id, 100).rows}

    def history(self, question):
        return [message.content for message in self.replies.task("ada", self.id, self.ids[question], "further").history]


@pytest.fixture
def chat(database):
    return Chat(database)


@pytest.fixture
def long_chat(chat):
    """Two turns."""
    for number in (1, 2):
        chat.ask(f"q{number}")
        chat.reply(f"q{number}", f"r{number}")
    return chat


def test_messages_follow_each_other_by_default(long_chat):
    assert long_chat.tree() == {"q1": None, "r1": "q1", "q2": "r1", "r2": "q2"}
    assert long_chat.current() == ["q1", "r1", "q2", "r2"]
    assert long_chat.store.get("ada", long_chat.id).current_message_id == long_chat.ids["r2"]


def test_an_edited_question_is_a_sibling_and_becomes_current(long_chat):
    long_chat.ask("q2'", "r1")
    assert long_chat.current() == ["q1", "r1", "q2'"]

    long_chat.reply("q2'", "r2'")
    long_chat.ask("q1'", None)

    assert long_chat.current() == ["q1'"]
    assert long_chat.tree() == {"q1": None, "r1": "q1", "q2": "r1", "r2": "q2", "q2'": "r1", "r2'": "q2'", "q1'": None}


def test_a_further_reply_is_a_sibling_and_becomes_current(long_chat):
    long_chat.reply("q2", "r2'", regenerate="a")

    assert long_chat.current() == ["q1", "r1", "q2", "r2'"]
    assert long_chat.tree()["r2'"] == "q2"

    long_chat.reply("q1", "r1'", regenerate="a")
    assert long_chat.current() == ["q1", "r1'"]


def test_a_switch_goes_to_the_newest_leaf_below_the_message(long_chat):
    long_chat.ask("q2'", "r1")
    long_chat.reply("q2'", "r2'")
    long_chat.ask("q1'", None)

    for name, branch in (
        ("q1", ["q1", "r1", "q2'", "r2'"]),
        ("q2", ["q1", "r1", "q2", "r2"]),
        ("r2'", ["q1", "r1", "q2'", "r2'"]),
        ("q1'", ["q1'"]),
    ):
        long_chat.switch(name)
        assert long_chat.current() == branch

    long_chat.switch(None)
    assert long_chat.current() == ["q1'"]


def test_a_message_of_another_conversation_is_no_parent_and_not_current(long_chat, database):
    other = Chat(database)
    other.ask("there")
    for unknown in (other.ids["there"], uuid4()):
        with pytest.raises(InvalidRequest, match="parentId"):
            long_chat.store.add_message("ada", long_chat.id, "text", Parent(unknown))
        with pytest.raises(InvalidRequest, match="currentMessageId"):
            long_chat.store.update("ada", long_chat.id, {"title": "new", "current_message_id": unknown})
        with pytest.raises(NotFound):
            long_chat.store.add_message("eve", long_chat.id, "text", Parent(unknown))

    assert long_chat.current() == ["q1", "r1", "q2", "r2"]
    assert long_chat.store.get("ada", long_chat.id).title == "q1"


def test_a_late_first_reply_is_inserted_before_what_follows(chat):
    chat.ask("q1")
    chat.ask("q2")
    chat.ask("q2'", "q1")

    chat.reply("q1", "r1")

    assert chat.tree() == {"q1": None, "r1": "q1", "q2": "r1", "q2'": "r1"}
    assert chat.current() == ["q1", "r1", "q2'"]
    assert chat.history("q2") == ["q1", "r1", "q2"]


def test_a_reply_on_another_branch_does_not_switch(long_chat):
    long_chat.ask("q2'", "r1")
    long_chat.switch("q2")

    long_chat.reply("q2'", "r2'")

    assert long_chat.current() == ["q1", "r1", "q2", "r2"]


def test_a_further_reply_does_not_hide_a_later_question_that_waits(long_chat):
    long_chat.ask("q3")

    long_chat.reply("q2", "r2'", regenerate="a")

    assert long_chat.current() == ["q1", "r1", "q2", "r2", "q3"]
    assert long_chat.replies.question("ada", long_chat.id, None, "").id == long_chat.ids["q3"]


def test_the_last_question_is_that_of_the_current_branch(long_chat):
    long_chat.ask("q1'", None)
    long_chat.switch("r2")

    assert long_chat.replies.question("ada", long_chat.id, None, "").id == long_chat.ids["q2"]


def test_an_agent_gets_the_branch_that_leads_to_the_question(long_chat):
    long_chat.reply("q1", "r1'", regenerate="a")
    long_chat.ask("q2'", "r1'")
    long_chat.ask("q1'", None)

    assert long_chat.history("q2") == ["q1", "r1", "q2"]
    assert long_chat.history("q2'") == ["q1", "r1'", "q2'"]
    assert long_chat.history("q1'") == ["q1'"]


def test_the_history_of_a_long_branch_is_bounded(chat, monkeypatch):
    monkeypatch.setattr(history, "MAX_TURNS", 2)
    for number in range(4):
        chat.ask(f"q{number}")
        chat.reply(f"q{number}", f"r{number}")

    assert chat.history("q3") == ["q1", "r1", "q2", "r2", "q3"]


def test_pages_of_the_current_branch_follow_each_other(long_chat):
    long_chat.ask("q2'", "r1")
    long_chat.switch("r2")

    pages, cursor = [], ""
    while cursor is not None:
        page = long_chat.store.messages("ada", long_chat.id, 3, cursor)
        pages.append([message.content for message in page.rows])
        cursor = page.next_cursor

    assert pages == [["q1", "r1", "q2"], ["r2"]]


def test_pages_of_all_branches_are_in_the_order_of_storing(long_chat):
    long_chat.ask("q2'", "r1")

    first = long_chat.store.all_messages("ada", long_chat.id, 3)
    second = long_chat.store.all_messages("ada", long_chat.id, 3, first.next_cursor)

    assert [[row.content for row in page.rows] for page in (first, second)] == [["q1", "r1", "q2"], ["r2", "q2'"]]


def test_a_page_continues_the_one_before_after_a_switch(long_chat):
    first = long_chat.store.messages("ada", long_chat.id, 3)
    long_chat.ask("q1'", None)

    second = long_chat.store.messages("ada", long_chat.id, 3, first.next_cursor)

    assert [row.content for row in second.rows] == ["r2"]


def test_a_cursor_of_another_conversation_is_refused(long_chat, database):
    other = Chat(database)
    other.ask("there")

    with pytest.raises(InvalidRequest):
        other.store.messages("ada", other.id, 1, long_chat.store.messages("ada", long_chat.id, 1).next_cursor)


def test_concurrent_questions_with_one_parent_are_siblings(chat):
    chat.ask("q1")
    chat.reply("q1", "r1")

    in_parallel(12, lambda number: chat.ask(f"sibling {number}", "r1"))

    assert [parent for name, parent in chat.tree().items() if name.startswith("sibling")] == ["r1"] * 12
    assert chat.current()[:2] == ["q1", "r1"]
    assert len(chat.current()) == 3


def test_concurrent_questions_without_a_parent_are_one_branch(chat):
    in_parallel(12, lambda number: chat.ask(f"question {number}"))

    assert len(chat.current()) == 12
