"""Branches of conversations over HTTP, in this process."""

import json
import uuid

import pytest

from tests.api.test_conversations import CONVERSATIONS, Client, frames, refused
from tests.engine.agents.openai_server import full_reply, settings_of
from tests.wire_server import WireServer


class BranchClient(Client):
    """A client of one conversation."""

    def __init__(self, app, user="ada", **conversation):
        super().__init__(app, user)
        self.id = self.create(**conversation)
        self.path = f"{CONVERSATIONS}/{self.id}"

    def ask(self, content, **fields):
        return self("POST", f"{self.path}/messages", {"content": content} | fields).get_json()

    def reply(self, question, query=""):
        """The id of the reply."""
        return frames(self.stream(self.id, f"?messageId={question['id']}{query}"))[-1]["data"]["messageId"]

    def switch(self, message_id):
        return self("PATCH", self.path, {"currentMessageId": message_id})

    def current(self):
        return self.contents(self.id)


@pytest.fixture
def make(app_with_database):
    """`make(SETTING="…")`: Ada's client of a new app."""
    return lambda agent="echo", **settings: BranchClient(app_with_database(**settings), agentId=agent)


@pytest.fixture
def client(make):
    return make()


def test_an_edited_question_is_a_sibling_of_the_original(client):
    first = client.ask("one")
    reply = client.reply(first)
    second = client.ask("two")
    edited = client.ask("2", parentId=reply)
    root = client.ask("1", parentId=None)

    assert [message["parentId"] for message in (first, second, edited, root)] == [None, reply, reply, None]
    assert client.current() == ["1"]
    assert client("GET", client.path).get_json()["currentMessageId"] == root["id"]
    listed = client.messages(client.id, "?branches=all")
    assert [(m["content"], m["parentId"]) for m in listed] == [
        ("one", None),
        ("one", first["id"]),
        ("two", reply),
        ("2", reply),
        ("1", None),
    ]


def test_a_regenerated_reply_is_a_sibling_of_the_first_one(client):
    question = client.ask("one")
    replies = [client.reply(question), client.reply(question, "&regenerate=a")]

    _, first, second = client.messages(client.id, "?branches=all")
    assert [(m["id"], m["parentId"]) for m in (first, second)] == [(reply, question["id"]) for reply in replies]
    assert [message["id"] for message in client.messages(client.id)] == [question["id"], replies[1]]


def test_a_switch_changes_the_current_branch(client):
    first = client.ask("one")
    reply = client.reply(first)
    client.ask("two", parentId=reply)
    other = client.ask("other", parentId=None)

    switched = client.switch(first["id"])

    assert (switched.status_code, switched.get_json()["title"]) == (200, "one")
    assert client.current() == ["one", "one", "two"]
    assert (
        client("PATCH", client.path, {"title": "new"}).get_json()["currentMessageId"] == switched.get_json()["currentMessageId"]
    )
    assert client.switch(None).get_json()["currentMessageId"] == other["id"]
    assert client.current() == ["other"]


@pytest.mark.parametrize("value", ["x", 5, ["x"], "", str(uuid.UUID(int=1))])
def test_an_invalid_parent_or_current_message_is_refused_with_its_field(client, value):
    client.ask("one")

    attempts = [
        ("parentId", client("POST", f"{client.path}/messages", {"content": "two", "parentId": value})),
        ("currentMessageId", client("PATCH", client.path, {"currentMessageId": value, "title": "new"})),
    ]

    for field, response in attempts:
        assert refused(response) == (400, "invalid_request")
        assert response.get_json()["error"].startswith(f"{field}: ")
    assert client.current() == ["one"]
    assert client("GET", client.path).get_json()["title"] == "one"


def test_a_message_of_another_users_conversation_is_unknown(client):
    eve = BranchClient(client.app, "eve")
    hers = eve.ask("hers")["id"]

    assert refused(client("POST", f"{client.path}/messages", {"content": "x", "parentId": hers})) == (400, "invalid_request")
    assert refused(client.switch(hers)) == (400, "invalid_request")
    assert refused(client("POST", f"{eve.path}/messages", {"content": "x", "parentId": hers})) == (404, "not_found")
    assert refused(client("PATCH", eve.path, {"currentMessageId": hers})) == (404, "not_found")
    assert eve.current() == ["hers"]


@pytest.mark.parametrize("query", ["branches=", "branches=some", "branches=all&cursor=x", "branches=current&cursor=x"])
def test_an_invalid_query_of_branches_is_refused(client, query):
    assert refused(client("GET", f"{client.path}/messages?{query}")) == (400, "invalid_request")


def test_the_current_branch_and_all_branches_are_paginated(client):
    first = client.ask("0")
    for text in "12345":
        client.ask(text)
    client.ask("other", parentId=first["id"])
    client.ask("last")

    def pages(query):
        cursor = ""
        while cursor is not None:
            page = client("GET", f"{client.path}/messages?limit=2&cursor={cursor}{query}").get_json()
            yield [message["content"] for message in page["messages"]]
            cursor = page["nextCursor"]

    assert [*pages("")] == [*pages("&branches=current")] == [["0", "other"], ["last"]]
    assert [*pages("&branches=all")] == [["0", "1"], ["2", "3"], ["4", "5"], ["other", "last"]]


def test_an_agent_gets_the_branch_that_leads_to_the_question(make):
    with WireServer(full_reply("first"), full_reply("second"), full_reply("third")) as server:
        client = make("openai", **settings_of(server))
        reply = client.reply(client.ask("one"))
        client.reply(client.ask("two"))
        client.reply(client.ask("other two", parentId=reply))

    assert [message["content"] for message in json.loads(server.requests[2].body)["messages"]] == ["one", "first", "other two"]


def test_a_truncated_reply_is_marked(client):
    client.reply(client.ask("one"))

    assert [message["truncated"] for message in client.messages(client.id)] == [False, False]
