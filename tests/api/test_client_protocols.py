"""Client protocols of /api/chat: how one is chosen, and what all of them share."""

import json
from urllib.parse import quote

import pytest

from tests.api.chat_requests import client, client_of
from tests.broker_responses import COMPLETE, RECEIPT, REPLY
from tests.live import ADA, BROKER_KEY, PROXY_SECRET, who
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


def post_message(browser, content, path: str = "/api/chat/stream", **headers: str):
    return browser.post(path, json=content, headers=ADA | headers)


def data_of(response) -> list[str]:
    return [line[6:] for line in response.get_data(as_text=True).splitlines() if line.startswith("data: ")]


def numbered_broker(*answers):
    """A broker that numbers its events and has a running message."""
    return WireServer(*answers, queue=json.dumps({"messages": [RUNNING]}).encode())


# Choosing a protocol


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize(
    ("query", "accept"),
    [("?protocol={}", "*/*"), ("", "text/event-stream; protocol={}"), ("", 'text/event-stream;protocol="{}", */*')],
    ids=["query", "accept", "accept quoted"],
)
def test_a_protocol_is_chosen_by_query_or_accept(name, query, accept):
    response = post_message(client(), BODIES[name], f"/api/chat/stream{query.format(name)}", Accept=accept.format(name))

    assert json.loads(data_of(response)[0]).items() >= FIRST[name].items()
    assert response.headers["X-Message-ID"]
    assert response.headers.get("x-vercel-ai-ui-message-stream") == ("v1" if name == "ai-sdk" else None)


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*", "application/json", ""])
def test_the_native_protocol_is_the_default(accept):
    assert json.loads(data_of(post_message(client(), BODIES["native"], Accept=accept))[0])["type"] == "status"


def test_an_unknown_protocol_is_refused():
    response = post_message(client(), BODIES["native"], "/api/chat/stream?protocol=morse")

    assert (response.status_code, response.json["code"]) == (400, "invalid_request")
    assert "native, ai-sdk, ag-ui" in response.json["error"]


# Request bodies


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
        ("ag-ui", RUN | {"messages": [{"role": "user", "content": "hello"}], "state": {"a": float("nan")}}),
    ],
)
def test_an_invalid_body_is_refused_as_json(name, content):
    with WireServer([RECEIPT]) as broker:
        response = post_message(client_of(broker), content, f"/api/chat/stream?protocol={name}")

        assert response.status_code == 400
        assert set(response.json) == {"error", "code", "request_id"}
        assert not broker.requests


@pytest.mark.parametrize(
    ("extra", "sent"),
    [
        ({"trigger": "submit-message"}, "u-1"),
        ({"trigger": "submit-message", "messageId": "u-1"}, None),
        ({"trigger": "regenerate-message", "messageId": "a-1"}, None),
    ],
    ids=["a new one", "edited", "regenerated"],
)
def test_ai_sdk_messages_are_idempotent_unless_edited_or_regenerated(extra, sent):
    with WireServer([RECEIPT], REPLY) as broker:
        post_message(client_of(broker), UI_MESSAGES | extra, "/api/chat/stream?protocol=ai-sdk").get_data()

    enqueued = json.loads(broker.requests[0].body)
    assert (enqueued["message"], enqueued.get("client_message_id")) == ("hello", sent)


def turns(name: str, count: int) -> dict:
    """A body as the protocol's client sends it: a history of `count` turns of 1 KB, and a new message."""
    text, history = "All work and no play makes Jack a dull boy. " * 12, []
    for number in range(count):
        for role in ("user", "assistant"):
            part = {"type": "text", "text": text, "state": "done"}
            history.append(
                {"id": f"{role}-{number}", "role": role}
                | ({"content": text} if name == "ag-ui" else {"parts": [{"type": "step-start"}, part]})
            )
    return BODIES[name] | {"messages": [*history, *BODIES[name]["messages"]]}


@pytest.mark.parametrize("name", ["ai-sdk", "ag-ui"])
def test_a_long_history_is_accepted(name):
    with WireServer([RECEIPT], REPLY) as broker:
        response = post_message(client_of(broker), turns(name, 500), f"/api/chat/stream?protocol={name}")

        assert response.status_code == 200, response.json
        response.get_data()
    assert json.loads(broker.requests[0].body)["message"] == "hello"


# Resuming


@pytest.mark.parametrize(
    ("last_event_id", "expected", "text"),
    [("", None, "hello"), ("1-0", "1-0", "hello"), ("1-0;text", "1-0", "hello"), ("2-0;text", "2-0", "hello")],
)
def test_a_reply_is_resumed_at_the_brokers_event_id(last_event_id, expected, text):
    with numbered_broker(NUMBERED) as broker:
        headers = ADA | ({"Last-Event-ID": last_event_id} if last_event_id else {})
        browser = client_of(broker)
        response = browser.get("/api/chat/stream/m-1?protocol=ai-sdk", headers=headers)
        parts = [json.loads(data) for data in data_of(response)[:-1]]

    assert broker.requests[0].headers.get("last-event-id") == expected
    assert [part["type"] for part in parts][:2] == ["start", "text-start"]
    assert "".join(part.get("delta", "") for part in parts) == text


# Restarts


def ids_of(response) -> list[str]:
    return [line[4:] for line in response.get_data(as_text=True).splitlines() if line.startswith("id: ")]


def test_the_native_protocol_has_a_restart_event():
    with WireServer([RECEIPT], RESTARTED) as broker:
        events = [json.loads(data) for data in data_of(post_message(client_of(broker), BODIES["native"]))]

    assert [event["type"] for event in events] == ["progress", "restart", "status", "progress", "complete"]


@pytest.mark.parametrize("name", ["ai-sdk", "ag-ui"])
def test_a_restart_after_output_ends_other_protocols_with_an_error(name):
    path = f"?protocol={name}"
    with WireServer([RECEIPT], RESTARTED) as broker:
        browser = client_of(broker)
        streamed = post_message(browser, BODIES[name], f"/api/chat/stream{path}")
        sent, ids = data_of(streamed), ids_of(streamed)
        follow = f"/api/chat/stream/m-1{path}"
        replayed = data_of(browser.get(follow, headers=ADA))
        after_end = browser.get(follow, headers=ADA | {"Last-Event-ID": ids[-1]})

    assert '"code":"interrupted"' in "".join(sent)
    assert '"ok"' not in "".join(sent), "nothing of the second run"
    assert (ids, after_end.status_code) == (["1-0;text", "2-0;end"], 204)
    assert [json.loads(data)["type"] for data in replayed if data != "[DONE]"] == [
        json.loads(data)["type"] for data in sent if data != "[DONE]"
    ]


@pytest.mark.parametrize("name", ["ai-sdk", "ag-ui"])
def test_a_restart_after_resumed_output_is_an_error_too(name):
    rest = [RESTARTED[0], chunk(b'id: 2-0\ndata: {"type":"restart"}\n\n'), *RESTARTED[2:]]
    with numbered_broker(rest) as broker:
        headers = ADA | {"Last-Event-ID": "1-0;text"}
        response = client_of(broker).get(f"/api/chat/stream/m-1?protocol={name}", headers=headers)
        sent = "".join(data_of(response))

    assert broker.requests[0].headers["last-event-id"] == "1-0"
    assert '"code":"interrupted"' in sent
    assert '"ok"' not in sent


def test_the_end_of_another_users_reply_is_not_found():
    stranger = ADA | {"X-Forwarded-User": "eve", "Last-Event-ID": "2-0;end"}

    with numbered_broker([reply(b'{"code":"not_found"}', "404 Not Found")]) as broker:
        response = client_of(broker).get("/api/chat/stream/m-1?protocol=ai-sdk", headers=stranger)

    assert response.status_code == 404


def message_of(chat_id: str) -> dict:
    return UI_MESSAGES | {"id": chat_id, "messages": [UI_MESSAGES["messages"][0] | {"id": chat_id[:100]}]}


CHAT_IDS = ["chat-1", "ἀρχῇ", "a%20b", "x" * 500]


@pytest.mark.parametrize("name", ["ai-sdk", "ag-ui"])
def test_each_chat_resumes_its_own_reply(name):
    browser = client(ECHO_WORD_SECONDS="30")
    bodies = [
        message_of(chat_id) if name == "ai-sdk" else RUN | {"threadId": chat_id, "runId": chat_id} for chat_id in CHAT_IDS
    ]
    streams = [post_message(browser, body, f"/api/chat/stream?protocol={name}") for body in bodies]

    for chat_id, stream in zip(CHAT_IDS, streams, strict=True):
        path = f"/api/chat/stream/{quote(chat_id)}/stream?protocol={name}"
        resumed = browser.get(path, headers=ADA)
        assert (resumed.status_code, resumed.headers["X-Message-ID"]) == (200, stream.headers["X-Message-ID"])
        resumed.close()
    for path in ("/api/chat/stream/chat-2/stream", "/api/chat/stream/CHAT-1/stream"):
        assert browser.get(path, headers=ADA).status_code == 204
    assert browser.get("/api/chat/stream/chat-1/stream", headers=who("eve")).status_code == 204
    for stream in streams:
        stream.close()


def test_a_chat_resumes_its_latest_reply():
    browser = client(ECHO_WORD_SECONDS="30")
    bodies = [message_of(chat_id) | {"trigger": "regenerate-message"} for chat_id in ("chat-1", "chat-1", "chat-2")]
    streams = [post_message(browser, body, "/api/chat/stream?protocol=ai-sdk") for body in bodies]

    resumed = browser.get("/api/chat/stream/chat-1/stream?protocol=ai-sdk", headers=ADA)

    assert resumed.headers["X-Message-ID"] == streams[1].headers["X-Message-ID"]
    for stream in (*streams, resumed):
        stream.close()


def test_a_message_without_a_chat_is_not_resumed_by_a_chats_id():
    browser = client(ECHO_WORD_SECONDS="30")
    streamed = post_message(browser, {"message": "one two"})

    assert browser.get("/api/chat/stream/chat-1/stream?protocol=ai-sdk", headers=ADA).status_code == 204
    assert browser.get("/api/chat/active", headers=ADA).json["messages"][0].keys() == {"message_id", "state", "position"}
    streamed.close()


def test_the_chats_id_is_sent_to_an_external_broker_and_found_there():
    active = [RUNNING | {"chat_id": "chat-1"}, {"message_id": "m-2", "state": "queued", "position": 1, "chat_id": "chat-2"}]

    with WireServer([RECEIPT], NUMBERED, NUMBERED, queue=json.dumps({"messages": active}).encode()) as broker:
        browser = client_of(broker)
        post_message(browser, UI_MESSAGES, "/api/chat/stream?protocol=ai-sdk").get_data()
        resumed = browser.get("/api/chat/stream/chat-1/stream?protocol=ai-sdk", headers=ADA)
        first = json.loads(data_of(resumed)[0])
        other = browser.get("/api/chat/stream/chat-3/stream?protocol=ai-sdk", headers=ADA)

    assert json.loads(broker.requests[0].body)["chat_id"] == "chat-1"
    assert first == {"type": "start", "messageId": "m-1"}
    assert other.status_code == 204


def test_the_latest_message_is_resumed_from_a_broker_without_chat_ids():
    queued = {"message_id": "m-2", "state": "queued", "position": 1}
    queue = json.dumps({"messages": [RUNNING, queued]}).encode()

    with WireServer(NUMBERED, queue=queue) as broker:
        response = client_of(broker).get("/api/chat/stream/chat-1/stream?protocol=ai-sdk", headers=ADA)

        assert json.loads(data_of(response)[0]) == {"type": "start", "messageId": "m-2"}


def test_a_ticket_resumes_the_latest_message():
    browser = client(ECHO_WORD_SECONDS="30")
    streamed = post_message(browser, UI_MESSAGES, "/api/chat/stream?protocol=ai-sdk")
    ticket = browser.post("/api/ticket", headers=ADA).json["ticket"]
    path = f"/api/chat/stream/chat-1/stream?protocol=ai-sdk&ticket={ticket}"

    response = browser.get(path, headers={"X-Proxy-Secret": PROXY_SECRET})

    assert (response.status_code, response.headers["X-Message-ID"]) == (200, streamed.headers["X-Message-ID"])
    for open_stream in (response, streamed):
        open_stream.close()


def test_resuming_the_latest_message_gets_204_when_none_is_active():
    assert client(BROKER_API_KEY=BROKER_KEY).get("/api/chat/stream/chat-1/stream", headers=ADA).status_code == 204
