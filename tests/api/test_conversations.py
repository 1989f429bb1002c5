"""/api/conversations and /api/agents, as requests and answers."""

import json
import re
import uuid

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.engine.agents.openai_server import DONE, HEAD, piece, refusal, settings_of, whole, words
from tests.live import new_app, who
from tests.wire_server import CUT, WireServer

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ROOM = "/api/conversations"


class Client:
    """One user's."""

    def __init__(self, app, user="ada"):
        self.app = app
        self._client = app.test_client(use_cookies=False)
        self._who = who(user)

    def __call__(self, method, path, content=None, **headers):
        fields = self._who | {name.replace("_", "-"): value for name, value in headers.items()}
        body = {} if content is None else {"data": content if isinstance(content, bytes) else json.dumps(content).encode()}
        if body:
            fields.setdefault("Content-Type", "application/json")
        return self._client.open(path, method=method, headers=fields, buffered=True, **body)

    def create(self, **content):
        return self("POST", ROOM, content).get_json()["id"]

    def say(self, conversation_id, text):
        return self("POST", f"{ROOM}/{conversation_id}/messages", {"content": text}).get_json()["id"]

    def stream(self, conversation_id, query="", **headers):
        return self("GET", f"{ROOM}/{conversation_id}/stream{query}", **headers)

    def contents(self, conversation_id):
        listed = self("GET", f"{ROOM}/{conversation_id}/messages").get_json()["messages"]
        return [message["content"] for message in listed]


@pytest.fixture
def make(tmp_path):
    """`make(user, SETTING="…")`: a client of an app of its own; all share one database."""
    apps = []

    def begin(user="ada", **settings):
        app = new_app(**{"DATABASE_URL": f"sqlite:///{tmp_path}/chat.db", "ECHO_WORD_SECONDS": "0"} | settings)
        apps.append(app)
        return Client(app, user)

    yield begin
    for app in apps:
        app.extensions["chat_bff"].store._database.close()


@pytest.fixture
def client(make):
    return make()


def frames(response) -> list[dict]:
    """Each with its `event`, `data` as JSON and `id`; the first frame, a comment, is checked."""
    first, *rest = response.get_data(as_text=True).removesuffix("\n\n").split("\n\n")
    assert first == ":ok"
    parsed = [dict(line.split(": ", 1) for line in frame.split("\n")) for frame in rest]
    return [frame | {"data": json.loads(frame["data"])} for frame in parsed]


def refused(response) -> tuple[int, str]:
    content = response.get_json()
    assert set(content) == {"error", "code", "request_id"}
    return response.status_code, content["code"]


# Conversations


def test_a_conversation_is_made_shown_listed_and_deleted(client):
    made = client("POST", ROOM, {"title": "Title", "agentId": "echo"})

    content = made.get_json()
    assert made.status_code == 201
    assert set(content) == {"id", "title", "agentId", "createdAt", "updatedAt"}
    assert (content["title"], content["agentId"]) == ("Title", "echo")
    assert uuid.UUID(content["id"])
    assert TIME.fullmatch(content["createdAt"])
    assert content["updatedAt"] == content["createdAt"]
    assert client("GET", f"{ROOM}/{content['id']}").get_json() == content
    assert client("GET", ROOM).get_json() == {"conversations": [content], "nextCursor": None}

    gone = client("DELETE", f"{ROOM}/{content['id']}")
    assert (gone.status_code, gone.data) == (204, b"")
    assert refused(client("GET", f"{ROOM}/{content['id']}")) == (404, "not_found")
    assert client("GET", ROOM).get_json()["conversations"] == []


@pytest.mark.parametrize(
    ("given", "title", "agent"),
    [
        ({"title": "new"}, "new", "echo"),
        ({"agentId": "openai"}, "old", "openai"),
        ({"title": None}, None, "echo"),
        ({"agentId": None}, "old", None),
        ({"title": "t" * 200, "agentId": "openai", "unknown": [1], "id": "x"}, "t" * 200, "openai"),
        ({}, "old", "echo"),
    ],
)
def test_title_and_agent_are_each_changed_alone(make, given, title, agent):
    client = make(OPENAI_BASE_URL="http://localhost:1/v1")
    conversation_id = client.create(title="old", agentId="echo")

    changed = client("PATCH", f"{ROOM}/{conversation_id}", given)

    assert changed.status_code == 200
    assert (changed.get_json()["title"], changed.get_json()["agentId"]) == (title, agent)
    assert client("GET", f"{ROOM}/{conversation_id}").get_json() == changed.get_json()


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
    ],
)
def test_what_makes_no_sense_is_refused_with_where_and_why(client, content, field):
    conversation_id = client.create(title="old")

    for method, path in (("POST", ROOM), ("PATCH", f"{ROOM}/{conversation_id}")):
        answer = client(method, path, content)
        assert refused(answer) == (400, "invalid_request")
        assert answer.get_json()["error"].startswith(field)

    assert [c["title"] for c in client("GET", ROOM).get_json()["conversations"]] == ["old"]


def test_pages_follow_one_another(client):
    made = [client.create(title=str(number)) for number in range(5)]

    listed, path = [], f"{ROOM}?limit=2"
    for expected in (2, 2, 1):
        page = client("GET", path).get_json()
        assert len(page["conversations"]) == expected
        listed += [conversation["id"] for conversation in page["conversations"]]
        path = f"{ROOM}?limit=2&cursor={page['nextCursor']}"

    assert page["nextCursor"] is None
    assert sorted(listed) == sorted(made)


@pytest.mark.parametrize("query", ["limit=x", "limit=1.5", "limit=", "limit=٣", "cursor=x", "cursor=W10"])
def test_a_limit_or_cursor_that_is_none_is_refused(client, query):
    conversation_id = client.create()

    assert refused(client("GET", f"{ROOM}?{query}")) == (400, "invalid_request")
    assert refused(client("GET", f"{ROOM}/{conversation_id}/messages?{query}")) == (400, "invalid_request")


@pytest.mark.parametrize(("limit", "count"), [("-1", 1), ("0", 1), ("1", 1), ("100", 3), ("999999999", 3)])
def test_a_limit_out_of_bounds_is_the_nearest_within(client, limit, count):
    for _ in range(3):
        client.create()

    assert len(client("GET", f"{ROOM}?limit={limit}").get_json()["conversations"]) == count


def test_somebody_elses_is_not_there(client, make):
    conversation_id = client.create(title="mine")
    message_id = client.say(conversation_id, "mine")
    eve = make("eve")
    unknown = str(uuid.uuid4())

    for mine in (f"{ROOM}/{conversation_id}", f"{ROOM}/{unknown}", f"{ROOM}/nonsense"):
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

    assert eve("GET", ROOM).get_json()["conversations"] == []
    assert client.contents(conversation_id) == ["mine"]


def test_nobody_has_none(client):
    anonymous = client.app.test_client()

    for path in (ROOM, "/api/agents", f"{ROOM}/{uuid.uuid4()}/stream"):
        assert anonymous.get(path).status_code == 403


# Messages


def test_a_message_is_kept_and_edited(client):
    conversation_id = client.create()

    said = client("POST", f"{ROOM}/{conversation_id}/messages", {"content": " said ", "role": "assistant"})
    content = said.get_json()
    edited = client("PUT", f"{ROOM}/{conversation_id}/messages/{content['id']}", {"content": "meant"}).get_json()

    assert said.status_code == 201
    assert TIME.fullmatch(content["createdAt"])
    assert content == {
        "id": content["id"],
        "conversationId": conversation_id,
        "role": "user",
        "content": " said ",
        "editedContent": None,
        "editedAt": None,
        "createdAt": content["createdAt"],
    }
    assert TIME.fullmatch(edited["editedAt"])
    assert edited == content | {"editedContent": "meant", "editedAt": edited["editedAt"]}
    assert client("GET", f"{ROOM}/{conversation_id}/messages").get_json() == {"messages": [edited], "nextCursor": None}


@pytest.mark.parametrize("content", ["", " ", "\n\u2003\t", "x" * 32_001, 5, None, ["x"], "a\0b"])
def test_a_message_that_says_nothing_or_too_much_is_refused(client, content):
    conversation_id = client.create()
    message_id = client.say(conversation_id, "said")

    for method, path in (("POST", "messages"), ("PUT", f"messages/{message_id}")):
        answer = client(method, f"{ROOM}/{conversation_id}/{path}", {"content": content})
        assert refused(answer) == (400, "invalid_request")
        assert answer.get_json()["error"].startswith("content: ")
    assert refused(client("POST", f"{ROOM}/{conversation_id}/messages", {})) == (400, "invalid_request")

    assert client.contents(conversation_id) == ["said"]


def test_the_longest_message_is_kept_however_it_is_written(client):
    conversation_id = client.create()
    longest = "👍" * 32_000

    client.say(conversation_id, longest)
    plain = json.dumps({"content": longest}, ensure_ascii=False).encode()
    client("POST", f"{ROOM}/{conversation_id}/messages", plain)

    assert client.contents(conversation_id) == [longest, longest]
    too_large = client("POST", f"{ROOM}/{conversation_id}/messages", {"content": "x" * 2**20})
    assert refused(too_large) == (413, "too_large")


def test_the_first_message_gives_a_title_where_there_is_none(client):
    unnamed, named = client.create(), client.create(title="Named")

    for conversation_id in (unnamed, named):
        client.say(conversation_id, "What is\nlove?")
        client.say(conversation_id, "And then?")

    titles = [client("GET", f"{ROOM}/{conversation_id}").get_json()["title"] for conversation_id in (unnamed, named)]
    assert titles == ["What is love?", "Named"]


def test_messages_a_minute_are_bounded(make):
    client = make(MESSAGES_PER_MINUTE="2")
    conversation_id = client.create()

    answers = [client("POST", f"{ROOM}/{conversation_id}/messages", {"content": "x"}) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [201, 201, 429]
    assert int(answers[-1].headers["Retry-After"]) > 0


fields = st.dictionaries(st.sampled_from(["title", "agentId", "content", "x"]), st.none() | st.text() | st.integers())


@hypothesis_settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | fields)
def test_no_body_at_all_breaks_a_door(client, content):
    conversation_id = client.create()

    for method, path in (("POST", ""), ("PATCH", f"/{conversation_id}"), ("POST", f"/{conversation_id}/messages")):
        assert client(method, ROOM + path, content).status_code < 500


# Agents


def test_the_agents_are_listed(make):
    listed = make(OPENAI_BASE_URL="http://localhost:1/v1", ENGINE_BASE_URL="http://localhost:1")("GET", "/api/agents")

    agents = listed.get_json()["agents"]
    assert [agent["id"] for agent in agents] == ["echo", "demo", "broker", "openai"]
    assert all(set(agent) == {"id", "name", "description"} and all(agent.values()) for agent in agents)


def test_the_agent_broker_is_offered_where_there_is_a_broker_or_an_engine_to_pass_messages_on_to(make):
    def agents(**settings):
        return [agent["id"] for agent in make(**settings)("GET", "/api/agents").get_json()["agents"]]

    assert agents() == ["echo", "demo"]
    assert agents(BROKER_BASE_URL="http://localhost:1", BROKER_API_KEY="key") == ["echo", "demo", "broker"]


# Replies


def test_a_reply_streams_word_by_word_and_is_kept(client):
    conversation_id = client.create()
    client.say(conversation_id, "In the beginning")

    response = client.stream(conversation_id)

    *tokens, done = frames(response)
    assert [(token["event"], token["data"]) for token in tokens] == [
        ("token", {"token": word}) for word in ("In ", "the ", "beginning")
    ]
    [_, kept] = client("GET", f"{ROOM}/{conversation_id}/messages").get_json()["messages"]
    assert done == {"event": "done", "data": {"messageId": kept["id"]}, "id": done["id"]}
    ids = [frame["id"] for frame in (*tokens, done)]
    assert len(set(ids)) == len(ids)
    assert (kept["role"], kept["content"]) == ("assistant", "In the beginning")


def test_its_frames_are_byte_for_byte_as_documented(client):
    conversation_id = client.create()
    client.say(conversation_id, "word two")

    body = client.stream(conversation_id).get_data()

    kept = client("GET", f"{ROOM}/{conversation_id}/messages").get_json()["messages"][1]["id"]
    assert re.sub(rb"\d{13}-\d+", b"1-1", body) == (
        b':ok\n\nevent: token\ndata: {"token": "word "}\nid: 1-1\n\nevent: token\ndata: {"token": "two"}\nid: 1-1\n\n'
        b'event: done\ndata: {"messageId": "%b"}\nid: 1-1\n\n' % kept.encode()
    )


def test_ids_are_left_out_for_who_does_not_want_them(client):
    conversation_id = client.create()
    client.say(conversation_id, "word")

    assert [sorted(frame) for frame in frames(client.stream(conversation_id, "?ids=0"))] == [["data", "event"]] * 2


def test_its_headers_are_those_of_every_stream(client):
    conversation_id = client.create()
    client.say(conversation_id, "word")

    response = client.stream(conversation_id)

    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store, no-transform"
    assert response.headers["X-Accel-Buffering"] == "no"
    response.close()


def test_what_is_answered_is_not_answered_again(client):
    conversation_id = client.create()
    client.say(conversation_id, "one")
    done = frames(client.stream(conversation_id))[-1]

    again = client.stream(conversation_id)
    assert (again.status_code, again.data) == (204, b"")
    client.say(conversation_id, "two")
    assert client.stream(conversation_id, Last_Event_ID=done["id"]).status_code == 204
    assert client.stream(conversation_id, Last_Event_ID="nonsense").status_code == 200

    assert client.contents(conversation_id)[:2] == ["one", "one"]


def test_a_question_that_was_edited_is_answered_again(client):
    conversation_id = client.create()
    question = client.say(conversation_id, "one")
    frames(client.stream(conversation_id))

    client("PUT", f"{ROOM}/{conversation_id}/messages/{question}", {"content": "two"})
    assert frames(client.stream(conversation_id))[-1]["event"] == "done"

    assert client.contents(conversation_id) == ["one", "one", "two"]
    assert client.stream(conversation_id).status_code == 204


def test_a_reply_is_resumed_after_any_event(client):
    conversation_id = client.create()
    client.say(conversation_id, "In the beginning")
    whole = frames(client.stream(conversation_id))

    for number, frame in enumerate(whole[:-1], start=1):
        assert frames(client.stream(conversation_id, Last_Event_ID=frame["id"])) == whole[number:]
        assert frames(client.stream(conversation_id, f"?last_event_id={frame['id']}")) == whole[number:]
    assert client.stream(conversation_id, Last_Event_ID=whole[-1]["id"]).status_code == 204


def test_an_id_of_a_run_that_is_gone_begins_with_restart(client):
    conversation_id = client.create()
    client.say(conversation_id, "word")

    restart, *rest = frames(client.stream(conversation_id, Last_Event_ID="1700000000000-0"))

    assert restart == {"event": "restart", "data": {}}
    assert [frame["event"] for frame in rest] == ["token", "done"]


def test_a_failure_is_not_asked_for_again_by_who_has_seen_it(make):
    with WireServer([refusal("500 Internal Server Error")]) as server:
        client = make(**settings_of(server))
        conversation_id = client.create(agentId="openai")
        client.say(conversation_id, "hello")
        seen = frames(client.stream(conversation_id))[-1]["id"]

        assert client.stream(conversation_id, Last_Event_ID=seen).status_code == 204
        assert len(server.requests) == 1
        assert frames(client.stream(conversation_id))[-1]["event"] == "failure"
        assert len(server.requests) == 2


def test_nothing_to_stop_is_no_error(client, make):
    conversation_id = client.create()

    for _ in range(2):
        assert client("POST", f"{ROOM}/{conversation_id}/stop").status_code == 202
    assert refused(make("eve")("POST", f"{ROOM}/{conversation_id}/stop")) == (404, "not_found")


def test_a_further_reply_is_given_once_a_text(client):
    conversation_id = client.create()
    client.say(conversation_id, "one")
    frames(client.stream(conversation_id))

    texts = ["a", "b", "a", "Any text: é 👍 " + "x" * 500, "%00", "a", ""]
    answers = [client.stream(conversation_id, f"?regenerate={text}") for text in texts]

    assert [answer.status_code for answer in answers] == [200, 200, 204, 200, 200, 204, 204]
    assert client.contents(conversation_id) == ["one"] * 6


def test_an_earlier_message_can_be_answered_and_later_ones_stay(client):
    conversation_id = client.create()
    first = client.say(conversation_id, "one")
    client.say(conversation_id, "two")

    frames(client.stream(conversation_id, f"?messageId={first}"))

    assert client.contents(conversation_id) == ["one", "two", "one"]
    assert client.stream(conversation_id, f"?messageId={first}").status_code == 204
    frames(client.stream(conversation_id))
    assert client.contents(conversation_id) == ["one", "two", "one", "two"]


def test_only_a_users_message_here_can_be_answered(client):
    conversation_id, other, empty = client.create(), client.create(), client.create()
    client.say(conversation_id, "one")
    elsewhere = client.say(other, "there")
    reply = frames(client.stream(conversation_id))[-1]["data"]["messageId"]

    assert refused(client.stream(conversation_id, f"?messageId={elsewhere}")) == (404, "not_found")
    assert refused(client.stream(conversation_id, f"?messageId={uuid.uuid4()}")) == (404, "not_found")
    assert refused(client.stream(conversation_id, f"?messageId={reply}")) == (400, "invalid_request")
    assert refused(client.stream(conversation_id, "?messageId=nonsense")) == (400, "invalid_request")
    assert refused(client.stream(empty)) == (400, "invalid_request")


def test_an_agent_is_given_what_was_meant(make):
    with WireServer(whole("first"), whole("second")) as server:
        client = make(**settings_of(server))
        conversation_id = client.create(agentId="openai")
        first = client.say(conversation_id, "said")
        reply = frames(client.stream(conversation_id))[-1]["data"]["messageId"]
        for message_id, text in ((first, "meant"), (reply, "corrected")):
            client("PUT", f"{ROOM}/{conversation_id}/messages/{message_id}", {"content": text})
        client.say(conversation_id, "next")
        frames(client.stream(conversation_id))

    assert json.loads(server.requests[1].body)["messages"] == [
        {"role": "user", "content": "meant"},
        {"role": "assistant", "content": "corrected"},
        {"role": "user", "content": "next"},
    ]


def test_the_agent_is_the_streams_or_the_conversations_or_echo(make):
    with WireServer(whole("from a model")) as server:
        client = make(**settings_of(server))
        by_default, its_own = client.create(), client.create(agentId="openai")
        for conversation_id in (by_default, its_own):
            client.say(conversation_id, "echoed")

        for path in (f"{by_default}", f"{its_own}"):
            frames(client.stream(path))
        frames(client.stream(by_default, "?agentId=openai&regenerate=1"))

    assert client.contents(by_default) == ["echoed", "echoed", "from a model"]
    assert client.contents(its_own) == ["echoed", "from a model"]
    assert len(server.requests) == 2
    assert refused(client.stream(by_default, "?agentId=nobody&regenerate=3")) == (400, "invalid_request")


FAILURES = {
    "it refuses": ([refusal("500 Internal Server Error")], "upstream_error"),
    "it says nothing": (whole(), "answer_incomplete"),
    "it says only blanks": (whole(" ", "\0\n"), "answer_incomplete"),
    "it says far too much": ([HEAD, *words("x" * 150_000, "x" * 150_000)], "upstream_error"),
    "it breaks off": ([HEAD, *words("so far"), CUT], "upstream_unavailable"),
    "it is busy for long": ([refusal("429 Too Many Requests", Retry_After="99")], "too_many_requests"),
}


@pytest.mark.parametrize(("answer", "code"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failure_is_told_in_our_words_and_nothing_is_kept(make, answer, code):
    with WireServer(answer) as server:
        client = make(EXPOSE_UPSTREAM_ERRORS="1", **settings_of(server))
        conversation_id = client.create(agentId="openai")
        client.say(conversation_id, "hello")
        response = client.stream(conversation_id, X_Request_ID="mine")
        last = frames(response)[-1]

    assert last["event"] == "failure"
    assert last["data"] == {"error": last["data"]["error"], "code": code, "request_id": "mine"}
    assert last["id"]
    assert "Somebody" not in last["data"]["error"]
    assert client.contents(conversation_id) == ["hello"]

    frames(client.stream(conversation_id, "?agentId=echo"))
    assert client.contents(conversation_id) == ["hello", "hello"]


def test_characters_sent_in_halves_are_kept_whole(make):
    halves = [piece({"content": "\ud83d"}), piece({"content": "\ude00 \ud83d"})]
    with WireServer([HEAD, *halves, piece({}, "stop"), DONE]) as server:
        client = make(**settings_of(server))
        conversation_id = client.create(agentId="openai")
        client.say(conversation_id, "smile")
        done = frames(client.stream(conversation_id))[-1]

    assert done["event"] == "done"
    assert client.contents(conversation_id)[1] == "😀 \ufffd"


def test_replies_a_minute_are_bounded(make):
    with WireServer([refusal("500 Internal Server Error")]) as server:
        client = make(MESSAGES_PER_MINUTE="3", **settings_of(server))
        conversation_id = client.create(agentId="openai")
        client.say(conversation_id, "hello")
        answers = [client.stream(conversation_id, Accept="text/event-stream") for _ in range(4)]
        bodies = [answer.get_data() for answer in answers]

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
def test_another_sites_page_cannot_make_an_agent_run(client, headers, status):
    conversation_id = client.create()
    client.say(conversation_id, "hello")

    response = client.stream(conversation_id, **headers)
    response.get_data()

    assert response.status_code == status
    assert len(client.contents(conversation_id)) == (2 if status == 200 else 1)


def test_a_request_for_the_headers_alone_answers_nothing(client):
    conversation_id = client.create()
    client.say(conversation_id, "hello")

    assert client("HEAD", f"{ROOM}/{conversation_id}/stream").status_code == 200
    assert client.contents(conversation_id) == ["hello"]
    assert client.stream(conversation_id).status_code == 200


def test_a_database_that_is_not_there_is_told_as_such(make):
    client = make(DATABASE_URL="postgresql://chat:password@127.0.0.1:1/chat")

    answer = client("GET", ROOM)

    assert refused(answer) == (503, "upstream_unavailable")
    assert answer.headers["Retry-After"]
    assert "password" not in answer.text


def test_tables_that_are_not_there_are_told_as_such_in_production(make):
    client = make(APP_ENV="production")

    assert refused(client("GET", ROOM)) == (503, "upstream_unavailable")
