"""/api/conversations and /api/agents over HTTP, in this process."""

import json
import re
import uuid

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.engine.agents.openai_server import DONE, HEAD, error_reply, full_reply, piece, settings_of, text_deltas
from tests.live import who
from tests.wire_server import CUT, WireServer

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
CONVERSATIONS = "/api/conversations"


class Client:
    """A client of one user."""

    def __init__(self, app, user="ada"):
        self.app = app
        self._client = app.test_client(use_cookies=False)
        self._identity_headers = who(user)

    def __call__(self, method, path, content=None, **headers):
        fields = self._identity_headers | {name.replace("_", "-"): value for name, value in headers.items()}
        body = {} if content is None else {"data": content if isinstance(content, bytes) else json.dumps(content).encode()}
        if body:
            fields.setdefault("Content-Type", "application/json")
        return self._client.open(path, method=method, headers=fields, buffered=True, **body)

    def create(self, **content):
        return self("POST", CONVERSATIONS, content).get_json()["id"]

    def add_message(self, conversation_id, text):
        return self("POST", f"{CONVERSATIONS}/{conversation_id}/messages", {"content": text}).get_json()["id"]

    def stream(self, conversation_id, query="", **headers):
        return self("GET", f"{CONVERSATIONS}/{conversation_id}/stream{query}", **headers)

    def messages(self, conversation_id, query=""):
        return self("GET", f"{CONVERSATIONS}/{conversation_id}/messages{query}").get_json()["messages"]

    def contents(self, conversation_id, query=""):
        return [message["content"] for message in self.messages(conversation_id, query)]


@pytest.fixture
def make(app_with_database):
    """`make(user, SETTING="…")`: a client of a new app. All apps share one database."""
    return lambda user="ada", **settings: Client(app_with_database(**settings), user)


@pytest.fixture
def client(make):
    return make()


def frames(response) -> list[dict]:
    """`event`, `data` as parsed JSON, and `id` of each frame after the first one, which is a comment."""
    first, *rest = response.get_data(as_text=True).removesuffix("\n\n").split("\n\n")
    assert first == ":ok"
    parsed = [dict(line.split(": ", 1) for line in frame.split("\n")) for frame in rest]
    return [frame | {"data": json.loads(frame["data"])} for frame in parsed]


def refused(response) -> tuple[int, str]:
    content = response.get_json()
    assert set(content) == {"error", "code", "request_id"}
    return response.status_code, content["code"]


# Conversations


def test_a_conversation_is_created_shown_listed_and_deleted(client):
    created = client("POST", CONVERSATIONS, {"title": "Title", "agentId": "echo"})

    content = created.get_json()
    assert created.status_code == 201
    assert set(content) == {"id", "title", "agentId", "currentMessageId", "createdAt", "updatedAt"}
    assert (content["title"], content["agentId"]) == ("Title", "echo")
    assert uuid.UUID(content["id"])
    assert TIME.fullmatch(content["createdAt"])
    assert content["updatedAt"] == content["createdAt"]
    assert client("GET", f"{CONVERSATIONS}/{content['id']}").get_json() == content
    assert client("GET", CONVERSATIONS).get_json() == {"conversations": [content], "nextCursor": None}

    deleted = client("DELETE", f"{CONVERSATIONS}/{content['id']}")
    assert (deleted.status_code, deleted.data, deleted.content_type) == (204, b"", None)
    assert refused(client("GET", f"{CONVERSATIONS}/{content['id']}")) == (404, "not_found")
    assert client("GET", CONVERSATIONS).get_json()["conversations"] == []


@pytest.mark.parametrize(
    ("changes", "title", "agent"),
    [
        ({"title": "new"}, "new", "echo"),
        ({"agentId": "openai"}, "old", "openai"),
        ({"title": None}, None, "echo"),
        ({"agentId": None}, "old", None),
        ({"title": "t" * 200, "agentId": "openai", "unknown": [1], "id": "x"}, "t" * 200, "openai"),
        ({}, "old", "echo"),
    ],
)
def test_title_and_agent_are_updated_independently(make, changes, title, agent):
    client = make(OPENAI_BASE_URL="http://localhost:1/v1")
    conversation_id = client.create(title="old", agentId="echo")

    changed = client("PATCH", f"{CONVERSATIONS}/{conversation_id}", changes)

    assert changed.status_code == 200
    assert (changed.get_json()["title"], changed.get_json()["agentId"]) == (title, agent)
    assert client("GET", f"{CONVERSATIONS}/{conversation_id}").get_json() == changed.get_json()


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"title": 5}, "title"),
        ({"title": ""}, "title"),
        ({"title": " \n\u2003"}, "title"),
        ({"title": "t" * 201}, "title"),
        ({"title": "a\0b"}, "title"),
        ({"title": ["x"]}, "title"),
        ({"agentId": 5}, "agentId"),
        ({"agentId": ""}, "agentId"),
        ({"agentId": "nobody"}, "agentId"),
        (b'{"title": "\\ud800"}', ""),
        (b'{"title": "\xff"}', ""),
        (b"[]", ""),
        (b"null", ""),
        (b"{", ""),
        (b'{"title": "new", "more": -Infinity}', ""),
    ],
)
def test_an_invalid_conversation_is_refused_with_its_field(client, content, field):
    conversation_id = client.create(title="old")

    for method, path in (("POST", CONVERSATIONS), ("PATCH", f"{CONVERSATIONS}/{conversation_id}")):
        response = client(method, path, content)
        assert refused(response) == (400, "invalid_request")
        assert response.get_json()["error"].startswith(field)

    assert [c["title"] for c in client("GET", CONVERSATIONS).get_json()["conversations"]] == ["old"]


def test_conversations_are_paginated(client):
    created = [client.create(title=str(number)) for number in range(5)]

    listed, path = [], f"{CONVERSATIONS}?limit=2"
    for expected in (2, 2, 1):
        page = client("GET", path).get_json()
        assert len(page["conversations"]) == expected
        listed += [conversation["id"] for conversation in page["conversations"]]
        path = f"{CONVERSATIONS}?limit=2&cursor={page['nextCursor']}"

    assert page["nextCursor"] is None
    assert sorted(listed) == sorted(created)


@pytest.mark.parametrize("query", ["limit=x", "limit=1.5", "limit=", "limit=٣", "cursor=x", "cursor=W10"])
def test_an_invalid_limit_or_cursor_is_refused(client, query):
    conversation_id = client.create()

    assert refused(client("GET", f"{CONVERSATIONS}?{query}")) == (400, "invalid_request")
    assert refused(client("GET", f"{CONVERSATIONS}/{conversation_id}/messages?{query}")) == (400, "invalid_request")


@pytest.mark.parametrize(("limit", "count"), [("-1", 1), ("0", 1), ("1", 1), ("100", 3), ("999999999", 3)])
def test_a_limit_out_of_bounds_is_clamped(client, limit, count):
    for _ in range(3):
        client.create()

    assert len(client("GET", f"{CONVERSATIONS}?limit={limit}").get_json()["conversations"]) == count


def test_another_users_conversation_is_not_found(client, make):
    conversation_id = client.create(title="mine")
    message_id = client.add_message(conversation_id, "mine")
    eve = make("eve")
    unknown = str(uuid.uuid4())

    for mine in (f"{CONVERSATIONS}/{conversation_id}", f"{CONVERSATIONS}/{unknown}", f"{CONVERSATIONS}/nonsense"):
        attempts = [
            eve("GET", mine),
            eve("PATCH", mine, {"title": "theirs"}),
            eve("DELETE", mine),
            eve("GET", f"{mine}/messages"),
            eve("POST", f"{mine}/messages", {"content": "theirs"}),
            eve("PUT", f"{mine}/messages/{message_id}", {"content": "theirs"}),
            eve("GET", f"{mine}/stream"),
        ]
        assert [refused(attempt) for attempt in attempts] == [(404, "not_found")] * len(attempts)

    assert eve("GET", CONVERSATIONS).get_json()["conversations"] == []
    assert client.contents(conversation_id) == ["mine"]


def test_unauthenticated_requests_are_forbidden(client):
    anonymous = client.app.test_client()

    for path in (CONVERSATIONS, "/api/agents", f"{CONVERSATIONS}/{uuid.uuid4()}/stream"):
        assert anonymous.get(path).status_code == 403


# Messages


def test_a_message_is_stored_and_edited(client):
    conversation_id = client.create()

    response = client("POST", f"{CONVERSATIONS}/{conversation_id}/messages", {"content": " said ", "role": "assistant"})
    content = response.get_json()
    edited = client("PUT", f"{CONVERSATIONS}/{conversation_id}/messages/{content['id']}", {"content": "meant"}).get_json()

    assert response.status_code == 201
    assert TIME.fullmatch(content["createdAt"])
    assert content == {
        "id": content["id"],
        "conversationId": conversation_id,
        "parentId": None,
        "role": "user",
        "content": " said ",
        "editedContent": None,
        "editedAt": None,
        "truncated": False,
        "createdAt": content["createdAt"],
    }
    assert TIME.fullmatch(edited["editedAt"])
    assert edited == content | {"editedContent": "meant", "editedAt": edited["editedAt"]}
    assert client("GET", f"{CONVERSATIONS}/{conversation_id}/messages").get_json() == {"messages": [edited], "nextCursor": None}


@pytest.mark.parametrize("content", ["", " ", "\n\u2003\t", "x" * 32_001, 5, None, ["x"], "a\0b"])
def test_an_invalid_message_is_refused(client, content):
    conversation_id = client.create()
    message_id = client.add_message(conversation_id, "said")

    for method, path in (("POST", "messages"), ("PUT", f"messages/{message_id}")):
        response = client(method, f"{CONVERSATIONS}/{conversation_id}/{path}", {"content": content})
        assert refused(response) == (400, "invalid_request")
        assert response.get_json()["error"].startswith("content: ")
    assert refused(client("POST", f"{CONVERSATIONS}/{conversation_id}/messages", {})) == (400, "invalid_request")

    assert client.contents(conversation_id) == ["said"]


def test_the_longest_message_is_stored_however_it_is_escaped(client):
    conversation_id = client.create()
    longest = "👍" * 32_000

    client.add_message(conversation_id, longest)
    plain = json.dumps({"content": longest}, ensure_ascii=False).encode()
    client("POST", f"{CONVERSATIONS}/{conversation_id}/messages", plain)

    assert client.contents(conversation_id) == [longest, longest]
    too_large = client("POST", f"{CONVERSATIONS}/{conversation_id}/messages", {"content": "x" * 2**20})
    assert refused(too_large) == (413, "too_large")


def test_the_first_message_sets_a_missing_title(client):
    unnamed, named = client.create(), client.create(title="Named")

    for conversation_id in (unnamed, named):
        client.add_message(conversation_id, "What is\nlove?")
        client.add_message(conversation_id, "And then?")

    titles = [client("GET", f"{CONVERSATIONS}/{conversation_id}").get_json()["title"] for conversation_id in (unnamed, named)]
    assert titles == ["What is love?", "Named"]


def test_messages_are_rate_limited(make):
    client = make(MESSAGES_PER_MINUTE="2")
    conversation_id = client.create()

    responses = [client("POST", f"{CONVERSATIONS}/{conversation_id}/messages", {"content": "x"}) for _ in range(3)]

    assert [response.status_code for response in responses] == [201, 201, 429]
    assert int(responses[-1].headers["Retry-After"]) > 0


fields = st.dictionaries(st.sampled_from(["title", "agentId", "content", "x"]), st.none() | st.text() | st.integers())


@hypothesis_settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | fields)
def test_no_body_causes_a_server_error(client, content):
    conversation_id = client.create()

    for method, path in (("POST", ""), ("PATCH", f"/{conversation_id}"), ("POST", f"/{conversation_id}/messages")):
        assert client(method, CONVERSATIONS + path, content).status_code < 500


# Agents


def test_agents_are_listed(make):
    listed = make(OPENAI_BASE_URL="http://localhost:1/v1", ENGINE_BASE_URL="http://localhost:1")("GET", "/api/agents")

    agents = listed.get_json()["agents"]
    assert [agent["id"] for agent in agents] == ["echo", "demo", "broker", "openai"]
    assert all(set(agent) == {"id", "name", "description"} and all(agent.values()) for agent in agents)


def test_the_agent_broker_needs_an_external_broker_or_engine(make):
    def agents(**settings):
        return [agent["id"] for agent in make(**settings)("GET", "/api/agents").get_json()["agents"]]

    assert agents() == ["echo", "demo"]
    assert agents(BROKER_BASE_URL="http://localhost:1", BROKER_API_KEY="key") == ["echo", "demo", "broker"]


# Replies


def test_a_reply_is_streamed_in_tokens_and_stored(client):
    conversation_id = client.create()
    client.add_message(conversation_id, "In the beginning")

    response = client.stream(conversation_id)

    *tokens, done = frames(response)
    assert [(token["event"], token["data"]) for token in tokens] == [
        ("token", {"token": word}) for word in ("In ", "the ", "beginning")
    ]
    [_, stored] = client("GET", f"{CONVERSATIONS}/{conversation_id}/messages").get_json()["messages"]
    assert done == {"event": "done", "data": {"messageId": stored["id"]}, "id": done["id"]}
    ids = [frame["id"] for frame in (*tokens, done)]
    assert len(set(ids)) == len(ids)
    assert (stored["role"], stored["content"]) == ("assistant", "In the beginning")


def test_frames_are_byte_for_byte_as_documented(client):
    conversation_id = client.create()
    client.add_message(conversation_id, "word two")

    body = client.stream(conversation_id).get_data()

    stored = client("GET", f"{CONVERSATIONS}/{conversation_id}/messages").get_json()["messages"][1]["id"]
    assert re.sub(rb"\d{13}-\d+", b"1-1", body) == (
        b':ok\n\nevent: token\ndata: {"token": "word "}\nid: 1-1\n\nevent: token\ndata: {"token": "two"}\nid: 1-1\n\n'
        b'event: done\ndata: {"messageId": "%b"}\nid: 1-1\n\n' % stored.encode()
    )


def test_ids_can_be_left_out(client):
    conversation_id = client.create()
    client.add_message(conversation_id, "word")

    assert [sorted(frame) for frame in frames(client.stream(conversation_id, "?ids=0"))] == [["data", "event"]] * 2


def test_a_stream_has_the_headers_of_all_streams(client):
    conversation_id = client.create()
    client.add_message(conversation_id, "word")

    response = client.stream(conversation_id)

    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store, no-transform"
    assert response.headers["X-Accel-Buffering"] == "no"
    response.close()


@pytest.mark.parametrize(
    ("setting", "query", "value"),
    [("cancel", "", "cancel"), ("cancel", "?on_disconnect=continue", "continue"), ("continue", "", "continue")],
)
def test_a_stream_says_whether_the_reply_continues_after_a_disconnect(make, setting, query, value):
    client = make(CONVERSATION_ON_DISCONNECT=setting)
    conversation_id = client.create()
    client.add_message(conversation_id, "word")

    with client.stream(conversation_id, query) as response:
        assert response.headers["X-On-Disconnect"] == value


def test_a_question_gets_one_reply(client):
    conversation_id = client.create()
    client.add_message(conversation_id, "one")
    done = frames(client.stream(conversation_id))[-1]

    again = client.stream(conversation_id)
    assert (again.status_code, again.data, again.content_type) == (204, b"", None)
    client.add_message(conversation_id, "two")
    assert client.stream(conversation_id, Last_Event_ID=done["id"]).status_code == 204
    assert client.stream(conversation_id, Last_Event_ID="nonsense").status_code == 200

    assert client.contents(conversation_id)[:2] == ["one", "one"]


def test_an_edited_question_gets_a_new_reply(client):
    conversation_id = client.create()
    question = client.add_message(conversation_id, "one")
    frames(client.stream(conversation_id))

    client("PUT", f"{CONVERSATIONS}/{conversation_id}/messages/{question}", {"content": "two"})
    assert frames(client.stream(conversation_id))[-1]["event"] == "done"

    assert client.contents(conversation_id, "?branches=all") == ["one", "one", "two"]
    assert client.contents(conversation_id) == ["one", "two"]
    assert client.stream(conversation_id).status_code == 204


def test_a_reply_is_resumed_after_any_event(client):
    conversation_id = client.create()
    client.add_message(conversation_id, "In the beginning")
    full_reply = frames(client.stream(conversation_id))

    for number, frame in enumerate(full_reply[:-1], start=1):
        assert frames(client.stream(conversation_id, Last_Event_ID=frame["id"])) == full_reply[number:]
        assert frames(client.stream(conversation_id, f"?last_event_id={frame['id']}")) == full_reply[number:]
    assert client.stream(conversation_id, Last_Event_ID=full_reply[-1]["id"]).status_code == 204


def test_an_unknown_event_id_gets_restart_first(client):
    conversation_id = client.create()
    client.add_message(conversation_id, "word")

    restart, *rest = frames(client.stream(conversation_id, Last_Event_ID="1700000000000-0"))

    assert restart == {"event": "restart", "data": {}}
    assert [frame["event"] for frame in rest] == ["token", "done"]


def test_a_failed_reply_is_not_retried_by_a_client_that_saw_it(make):
    with WireServer([error_reply("500 Internal Server Error")]) as server:
        client = make(**settings_of(server))
        conversation_id = client.create(agentId="openai")
        client.add_message(conversation_id, "hello")
        seen = frames(client.stream(conversation_id))[-1]["id"]

        assert client.stream(conversation_id, Last_Event_ID=seen).status_code == 204
        assert len(server.requests) == 1
        assert frames(client.stream(conversation_id))[-1]["event"] == "failure"
        assert len(server.requests) == 2


def test_stop_is_idempotent(client, make):
    conversation_id = client.create()

    for _ in range(2):
        assert client("POST", f"{CONVERSATIONS}/{conversation_id}/stop").status_code == 202
    assert refused(make("eve")("POST", f"{CONVERSATIONS}/{conversation_id}/stop")) == (404, "not_found")


def test_regenerate_gets_one_reply_per_text(client):
    conversation_id = client.create()
    client.add_message(conversation_id, "one")
    frames(client.stream(conversation_id))

    texts = ["a", "b", "a", "Any text: é 👍 " + "x" * 500, "%00", "a", ""]
    responses = [client.stream(conversation_id, f"?regenerate={text}") for text in texts]

    assert [response.status_code for response in responses] == [200, 200, 204, 200, 200, 204, 204]
    assert client.contents(conversation_id, "?branches=all") == ["one"] * 6
    assert client.contents(conversation_id) == ["one"] * 2


def test_an_earlier_message_can_get_a_reply(client):
    conversation_id = client.create()
    first = client.add_message(conversation_id, "one")
    client.add_message(conversation_id, "two")

    frames(client.stream(conversation_id, f"?messageId={first}"))

    assert client.contents(conversation_id) == ["one", "one", "two"]
    assert client.stream(conversation_id, f"?messageId={first}").status_code == 204
    frames(client.stream(conversation_id))
    assert client.contents(conversation_id) == ["one", "one", "two", "two"]


def test_only_the_users_messages_of_this_conversation_get_replies(client):
    conversation_id, other, empty = client.create(), client.create(), client.create()
    client.add_message(conversation_id, "one")
    elsewhere = client.add_message(other, "there")
    reply = frames(client.stream(conversation_id))[-1]["data"]["messageId"]

    assert refused(client.stream(conversation_id, f"?messageId={elsewhere}")) == (404, "not_found")
    assert refused(client.stream(conversation_id, f"?messageId={uuid.uuid4()}")) == (404, "not_found")
    assert refused(client.stream(conversation_id, f"?messageId={reply}")) == (400, "invalid_request")
    assert refused(client.stream(conversation_id, "?messageId=nonsense")) == (400, "invalid_request")
    assert refused(client.stream(empty)) == (400, "invalid_request")


def test_an_agent_gets_the_edited_messages(make):
    with WireServer(full_reply("first"), full_reply("second")) as server:
        client = make(**settings_of(server))
        conversation_id = client.create(agentId="openai")
        first = client.add_message(conversation_id, "said")
        reply = frames(client.stream(conversation_id))[-1]["data"]["messageId"]
        for message_id, text in ((first, "meant"), (reply, "corrected")):
            client("PUT", f"{CONVERSATIONS}/{conversation_id}/messages/{message_id}", {"content": text})
        client.add_message(conversation_id, "next")
        frames(client.stream(conversation_id))

    assert json.loads(server.requests[1].body)["messages"] == [
        {"role": "user", "content": "meant"},
        {"role": "assistant", "content": "corrected"},
        {"role": "user", "content": "next"},
    ]


def test_the_agent_is_chosen_by_stream_conversation_or_default(make):
    with WireServer(full_reply("from a model")) as server:
        client = make(**settings_of(server))
        by_default, its_own = client.create(), client.create(agentId="openai")
        for conversation_id in (by_default, its_own):
            client.add_message(conversation_id, "echoed")

        for path in (f"{by_default}", f"{its_own}"):
            frames(client.stream(path))
        frames(client.stream(by_default, "?agentId=openai&regenerate=1"))

    assert client.contents(by_default) == ["echoed", "from a model"]
    assert client.contents(its_own) == ["echoed", "from a model"]
    assert len(server.requests) == 2
    assert refused(client.stream(by_default, "?agentId=nobody&regenerate=3")) == (400, "invalid_request")


FAILURES = {
    "an error status": ([error_reply("500 Internal Server Error")], "upstream_error"),
    "no text": (full_reply(), "answer_incomplete"),
    "only blanks": (full_reply(" ", "\0\n"), "answer_incomplete"),
    "too much text": ([HEAD, *text_deltas("x" * 150_000, "x" * 150_000)], "upstream_error"),
    "a broken stream": ([HEAD, *text_deltas("so far"), CUT], "upstream_unavailable"),
    "rate limited": ([error_reply("429 Too Many Requests", Retry_After="99")], "too_many_requests"),
}


@pytest.mark.parametrize(("steps", "code"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failed_reply_ends_with_our_error_and_is_not_stored(make, steps, code):
    with WireServer(steps) as server:
        client = make(EXPOSE_UPSTREAM_ERRORS="1", **settings_of(server))
        conversation_id = client.create(agentId="openai")
        client.add_message(conversation_id, "hello")
        response = client.stream(conversation_id, X_Request_ID="mine")
        last = frames(response)[-1]

    assert last["event"] == "failure"
    assert last["data"] == {"error": last["data"]["error"], "code": code, "request_id": "mine"}
    assert last["id"]
    assert "Somebody" not in last["data"]["error"]
    assert client.contents(conversation_id) == ["hello"]

    frames(client.stream(conversation_id, "?agentId=echo"))
    assert client.contents(conversation_id) == ["hello", "hello"]


def test_surrogate_pairs_split_over_tokens_are_joined(make):
    halves = [piece({"content": "\ud83d"}), piece({"content": "\ude00 \ud83d"})]
    with WireServer([HEAD, *halves, piece({}, "stop"), DONE]) as server:
        client = make(**settings_of(server))
        conversation_id = client.create(agentId="openai")
        client.add_message(conversation_id, "smile")
        done = frames(client.stream(conversation_id))[-1]

    assert done["event"] == "done"
    assert client.contents(conversation_id)[1] == "😀 \ufffd"


def test_replies_are_rate_limited(make):
    with WireServer([error_reply("500 Internal Server Error")]) as server:
        client = make(MESSAGES_PER_MINUTE="3", **settings_of(server))
        conversation_id = client.create(agentId="openai")
        client.add_message(conversation_id, "hello")
        responses = [client.stream(conversation_id, Accept="text/event-stream") for _ in range(4)]
        bodies = [response.get_data() for response in responses]

    assert len(server.requests) == 3
    assert bodies[-1].startswith(b"retry: ")
    assert refused(client.stream(conversation_id)) == (429, "too_many_requests")


SAME, OTHER = "http://localhost", "https://evil.example"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
        ({"Sec_Fetch_Site": "none"}, 200),
        ({"Origin": SAME}, 200),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "cross-site", "Origin": SAME}, 403),
        ({"Origin": OTHER}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": OTHER, "Authorization": "Bearer of-no-cookie"}, 403),
    ],
)
def test_other_sites_cannot_start_a_reply(client, headers, status):
    conversation_id = client.create()
    client.add_message(conversation_id, "hello")

    response = client.stream(conversation_id, **headers)
    response.get_data()

    assert response.status_code == status
    assert len(client.contents(conversation_id)) == (2 if status == 200 else 1)


def test_head_starts_no_reply(client):
    conversation_id = client.create()
    client.add_message(conversation_id, "hello")

    assert client("HEAD", f"{CONVERSATIONS}/{conversation_id}/stream").status_code == 200
    assert client.contents(conversation_id) == ["hello"]
    assert client.stream(conversation_id).status_code == 200


def test_an_unreachable_database_is_unavailable(make):
    client = make(DATABASE_URL="postgresql://chat:password@127.0.0.1:1/chat")

    response = client("GET", CONVERSATIONS)

    assert refused(response) == (503, "upstream_unavailable")
    assert response.headers["Retry-After"]
    assert "password" not in response.text


def test_missing_tables_are_unavailable_in_production(make):
    client = make(APP_ENV="production")

    assert refused(client("GET", CONVERSATIONS)) == (503, "upstream_unavailable")
