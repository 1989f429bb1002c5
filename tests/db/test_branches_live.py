"""Branches on live servers: many requests at once, and changes while a reply is written."""

from functools import partial

import pytest

from tests.db.talk import ROOM, ConversationBrowser, parse_frames
from tests.live import eventually, in_parallel, status_of

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

LONG = " ".join(f"word-{number}" for number in range(30))
POSTS = 200


@pytest.fixture
def ada(start, url):
    """Ada, of a server on SQLite and on PostgreSQL."""
    return ConversationBrowser(start("gunicorn", DATABASE_URL=url, ECHO_WORD_SECONDS="0.02", MESSAGES_PER_MINUTE="99999"))


def post(ada, conversation, text, parent):
    return ada.request("POST", f"{ROOM}/{conversation}/messages", {"content": text, "parentId": parent})


def branch(ada, conversation):
    """The texts of the current branch."""
    listed = ada.request("GET", f"{ROOM}/{conversation}/messages?limit=100").json()["messages"]
    return [message["content"] for message in listed]


def tree(ada, conversation):
    """Pairs of a message's text and its parent's id, of all branches."""
    messages, cursor = [], ""
    while cursor is not None:
        page = ada.request("GET", f"{ROOM}/{conversation}/messages?branches=all&limit=100&cursor={cursor}").json()
        messages += page["messages"]
        cursor = page["nextCursor"]
    return [(message["content"], message["parentId"]) for message in messages]


def begin(ada, text="hello"):
    """A conversation with one reply. Returns the ids of the conversation, of the question and of the reply."""
    conversation = ada.begin(text)
    [*_, done] = parse_frames(ada.open_stream(conversation))
    return conversation, ada.stored_messages(conversation)[0]["id"], done["data"]["messageId"]


def test_two_hundred_questions_at_once_are_versions_of_each_other(ada):
    conversation, _, reply = begin(ada)

    def add(number):
        """Retries when no connection to the database was free, which stores nothing."""
        return eventually(lambda: status_of(post(ada, conversation, f"question {number}", reply)) == 201, 60)

    assert in_parallel(POSTS, add) == [True] * POSTS
    assert sorted(tree(ada, conversation)[2:]) == sorted((f"question {number}", reply) for number in range(POSTS))
    first, second, last = branch(ada, conversation)
    assert (first, second) == ("hello", "hello")
    assert last.startswith("question ")


def test_a_switch_while_a_reply_is_written_stays(ada):
    conversation, question, _ = begin(ada)
    other = post(ada, conversation, LONG, None).json()["id"]
    frames = parse_frames(ada.open_stream(conversation, f"?messageId={other}"))
    while next(frames).get("event") != "token":
        pass

    ada.change(conversation, currentMessageId=question)

    [*_, done] = frames
    assert done["event"] == "done"
    assert branch(ada, conversation) == ["hello", "hello"]
    assert tree(ada, conversation)[-1] == (LONG, other)
    ada.change(conversation, currentMessageId=other)
    assert branch(ada, conversation) == [LONG, LONG]


def test_a_deletion_while_a_reply_is_written_ends_it(ada):
    conversation, _, reply = begin(ada)
    assert status_of(post(ada, conversation, LONG, reply)) == 201
    frames = parse_frames(ada.open_stream(conversation))
    while next(frames).get("event") != "token":
        pass

    assert status_of(ada.request("DELETE", f"{ROOM}/{conversation}")) == 204

    assert [*frames][-1]["event"] in {"stopped", "failure"}
    for path in ("", "/messages", "/messages?branches=all"):
        assert status_of(ada.request("GET", f"{ROOM}/{conversation}{path}")) == 404
    assert status_of(post(ada, conversation, "late", reply)) == 404


def test_two_tabs_edit_and_regenerate_a_message_at_once(ada):
    conversation, question, reply = begin(ada)

    def tab(number):
        edited = post(ada, conversation, f"edited {number}", None).json()["id"]
        for query in (f"?messageId={question}&regenerate={number}", f"?messageId={edited}"):
            assert eventually(partial(get_reply, query), 30)

    def get_reply(query):
        """Whether it has ended; not while the other tab's reply is written."""
        with ada.open_stream(conversation, query) as stream:
            return stream.status == 200 and [*parse_frames(stream)][-1]["event"] == "done"

    in_parallel(2, tab)

    messages = ada.stored_messages(conversation)
    parents = {message["content"]: message["parentId"] for message in messages if message["role"] == "user"}
    assert parents == {"hello": None, "edited 0": None, "edited 1": None}
    assert [m["parentId"] for m in messages if m["content"] == "hello"] == [None, *[question] * 3]
    for message in messages:
        ada.change(conversation, currentMessageId=message["id"])
        assert branch(ada, conversation)[-1] == message["content"]
    assert reply in {message["id"] for message in messages}
