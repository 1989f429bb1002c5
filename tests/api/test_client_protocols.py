"""How a client says what it speaks, and what stays as it is whatever it speaks."""

import json

import pytest

from tests.api.chat_requests import client, client_of
from tests.broker_says import ANSWER, COMPLETE, TICKET
from tests.live import ADA, BROKER_KEY, PROXY_SECRET
from tests.wire_server import LAST_CHUNK, WireServer, chunk, reply, stream_head

UI_MESSAGES = {"id": "chat-1", "messages": [{"id": "u-1", "role": "user", "parts": [{"type": "text", "text": "hello"}]}]}
RUN = {"threadId": "t-1", "runId": "r-1", "messages": [{"id": "u-1", "role": "user", "content": "hello"}]}
BODIES = {"native": {"message": "hello"}, "ai-sdk": UI_MESSAGES, "ag-ui": RUN}
FIRST = {"native": {"type": "status"}, "ai-sdk": {"type": "start"}, "ag-ui": {"type": "RUN_STARTED", "runId": "r-1"}}
RUNNING = {"message_id": "m-1", "state": "running", "position": 0}
NUMBERED = [
    stream_head(),
    chunk(b'id: 1-0\ndata: {"type":"progress","text":"he"}\n\nid: 2-0\ndata: {"type":"progress","text":"llo"}\n\n'),
    chunk(f"id: 3-0\ndata: {COMPLETE}\n\n".encode()),
    LAST_CHUNK,
]


RESTARTED = [
    stream_head(),
    chunk(b'id: 1-0\ndata: {"type":"progress","text":"Half"}\n\nid: 2-0\ndata: {"type":"restart"}\n\n'),
    chunk(b'id: 3-0\nevent: processing\ndata: {}\n\nid: 4-0\ndata: {"type":"progress","text":"ok"}\n\n'),
    chunk(f"id: 5-0\ndata: {COMPLETE}\n\n".encode()),
    LAST_CHUNK,
]


def say(browser, content, path: str = "/api/chat/stream", **headers: str):
    return browser.post(path, json=content, headers=ADA | headers)


def data_of(response) -> list[str]:
    return [line[6:] for line in response.get_data(as_text=True).splitlines() if line.startswith("data: ")]


def answering(*answers):
    """A broker that numbers, asked for streams."""
    return WireServer(*answers, queue=json.dumps({"messages": [RUNNING]}).encode())


# Which one


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize(
    ("query", "accept"),
    [("?protocol={}", "*/*"), ("", "text/event-stream; protocol={}"), ("", 'text/event-stream;protocol="{}", */*')],
    ids=["query", "accept", "accept quoted"],
)
def test_a_protocol_is_chosen_by_the_address_or_by_what_is_accepted(name, query, accept):
    response = say(client(), BODIES[name], f"/api/chat/stream{query.format(name)}", Accept=accept.format(name))

    assert json.loads(data_of(response)[0]).items() >= FIRST[name].items()
    assert response.headers["X-Message-ID"]
    assert response.headers.get("x-vercel-ai-ui-message-stream") == ("v1" if name == "ai-sdk" else None)


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*", "application/json", ""])
def test_whoever_chooses_nothing_is_spoken_to_in_our_own_words(accept):
    assert json.loads(data_of(say(client(), BODIES["native"], Accept=accept))[0])["type"] == "status"


def test_a_protocol_that_nobody_speaks_is_refused():
    response = say(client(), BODIES["native"], "/api/chat/stream?protocol=morse")

    assert (response.status_code, response.json["code"]) == (400, "invalid_request")
    assert "native, ai-sdk, ag-ui" in response.json["error"]


# What is asked


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ai-sdk", {"messages": []}),
        ("ai-sdk", {"messages": [{"role": "assistant", "parts": []}]}),
        ("ai-sdk", {"messages": [{"role": "user", "parts": [{"type": "file", "url": "data:image/png;base64,"}]}]}),
        ("ai-sdk", {"messages": [{"role": "user", "parts": [{"type": "text", "text": 5}]}]}),
        ("ai-sdk", {"message": "hello"}),
        ("ag-ui", RUN | {"messages": [{"role": "tool", "content": "4"}]}),
        ("ag-ui", RUN | {"messages": [{"role": "user", "content": [{"type": "binary"}]}]}),
        ("ag-ui", RUN | {"messages": [{"role": "user", "content": " "}]}),
        ("ag-ui", []),
    ],
)
def test_what_says_nothing_we_could_answer_is_refused_in_our_one_shape(name, content):
    with WireServer([TICKET]) as broker:
        response = say(client_of(broker), content, f"/api/chat/stream?protocol={name}")

        assert response.status_code == 400
        assert set(response.json) == {"error", "code", "request_id"}
        assert not broker.requests


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"trigger": "submit-message"}, "u-1"),
        ({"trigger": "submit-message", "messageId": "u-1"}, None),
        ({"trigger": "regenerate-message", "messageId": "a-1"}, None),
    ],
    ids=["a new one", "edited", "regenerated"],
)
def test_a_message_of_the_ai_sdks_is_safe_to_send_again_unless_it_is_said_anew(more, told):
    with WireServer([TICKET], ANSWER) as broker:
        say(client_of(broker), UI_MESSAGES | more, "/api/chat/stream?protocol=ai-sdk").get_data()

    left = json.loads(broker.requests[0].body)
    assert (left["message"], left.get("client_message_id")) == ("hello", told)


def turns(name: str, count: int) -> dict:
    """A chat as the protocol's client sends it along: `count` turns of a kilobyte, and then hello."""
    text, said = "All work and no play makes Jack a dull boy. " * 12, []
    for number in range(count):
        for role in ("user", "assistant"):
            part = {"type": "text", "text": text, "state": "done"}
            said.append(
                {"id": f"{role}-{number}", "role": role}
                | ({"content": text} if name == "ag-ui" else {"parts": [{"type": "step-start"}, part]})
            )
    return BODIES[name] | {"messages": [*said, *BODIES[name]["messages"]]}


@pytest.mark.parametrize("name", ["ai-sdk", "ag-ui"])
def test_a_long_chat_goes_on(name):
    with WireServer([TICKET], ANSWER) as broker:
        response = say(client_of(broker), turns(name, 500), f"/api/chat/stream?protocol={name}")

        assert response.status_code == 200, response.json
        response.get_data()
    assert json.loads(broker.requests[0].body)["message"] == "hello"


# Coming back


@pytest.mark.parametrize(
    ("last", "asked_for", "text"),
    [("", None, "hello"), ("1-0", "1-0", "hello"), ("1-0;text", "1-0", "hello"), ("2-0;text", "2-0", "hello")],
)
def test_a_place_in_an_answer_is_the_brokers_whatever_was_spoken(last, asked_for, text):
    with answering(NUMBERED) as broker:
        headers = ADA | ({"Last-Event-ID": last} if last else {})
        browser = client_of(broker)
        response = browser.get("/api/chat/stream/m-1?protocol=ai-sdk", headers=headers)
        parts = [json.loads(data) for data in data_of(response)[:-1]]

    assert broker.requests[0].headers.get("last-event-id") == asked_for
    assert [part["type"] for part in parts][:2] == ["start", "text-start"]
    assert "".join(part.get("delta", "") for part in parts) == text


# An answer that begins anew


def ids_of(response) -> list[str]:
    return [line[4:] for line in response.get_data(as_text=True).splitlines() if line.startswith("id: ")]


def test_our_own_words_tell_of_a_restart():
    with WireServer([TICKET], RESTARTED) as broker:
        events = [json.loads(data) for data in data_of(say(client_of(broker), BODIES["native"]))]

    assert [event["type"] for event in events] == ["progress", "restart", "status", "progress", "complete"]


@pytest.mark.parametrize("name", ["ai-sdk", "ag-ui"])
def test_a_protocol_that_cannot_take_words_back_ends_with_its_error(name):
    path = f"?protocol={name}"
    with WireServer([TICKET], RESTARTED) as broker:
        browser = client_of(broker)
        said = say(browser, BODIES[name], f"/api/chat/stream{path}")
        told, ids = data_of(said), ids_of(said)
        follow = f"/api/chat/stream/m-1{path}"
        again = data_of(browser.get(follow, headers=ADA))
        seen = browser.get(follow, headers=ADA | {"Last-Event-ID": ids[-1]})

    assert '"code":"interrupted"' in "".join(told)
    assert '"ok"' not in "".join(told), "nothing of the new start"
    assert (ids, seen.status_code) == (["1-0;text", "2-0;end"], 204)
    assert [json.loads(data)["type"] for data in again if data != "[DONE]"] == [
        json.loads(data)["type"] for data in told if data != "[DONE]"
    ]


@pytest.mark.parametrize("name", ["ai-sdk", "ag-ui"])
def test_whoever_resumes_after_words_is_told_of_the_error_too(name):
    rest = [RESTARTED[0], chunk(b'id: 2-0\ndata: {"type":"restart"}\n\n'), *RESTARTED[2:]]
    with answering(rest) as broker:
        headers = ADA | {"Last-Event-ID": "1-0;text"}
        response = client_of(broker).get(f"/api/chat/stream/m-1?protocol={name}", headers=headers)
        told = "".join(data_of(response))

    assert broker.requests[0].headers["last-event-id"] == "1-0"
    assert '"code":"interrupted"' in told
    assert '"ok"' not in told


def test_an_end_that_was_seen_is_still_only_its_users():
    stranger = ADA | {"X-Forwarded-User": "eve", "Last-Event-ID": "2-0;end"}

    with answering([reply(b'{"code":"not_found"}', "404 Not Found")]) as broker:
        response = client_of(broker).get("/api/chat/stream/m-1?protocol=ai-sdk", headers=stranger)

    assert response.status_code == 404


def test_what_a_user_said_last_is_found_without_its_id():
    queued = {"message_id": "m-2", "state": "queued", "position": 1}
    queue = json.dumps({"messages": [RUNNING, queued]}).encode()

    with WireServer(NUMBERED, queue=queue) as broker:
        response = client_of(broker).get("/api/chat/stream/chat-1/stream?protocol=ai-sdk", headers=ADA)

        assert json.loads(data_of(response)[0]) == {"type": "start", "messageId": "m-2"}


def test_a_ticket_opens_what_was_said_last():
    browser = client(ECHO_WORD_SECONDS="30")
    said = say(browser, {"message": "one two"})
    ticket = browser.post("/api/ticket", headers=ADA).json["ticket"]
    path = f"/api/chat/stream/chat-1/stream?protocol=ai-sdk&ticket={ticket}"

    response = browser.get(path, headers={"X-Proxy-Secret": PROXY_SECRET})

    assert (response.status_code, response.headers["X-Message-ID"]) == (200, said.headers["X-Message-ID"])
    for open_stream in (response, said):
        open_stream.close()


def test_where_nothing_goes_on_there_is_nothing_to_follow():
    assert client(BROKER_API_KEY=BROKER_KEY).get("/api/chat/stream/chat-1/stream", headers=ADA).status_code == 204
