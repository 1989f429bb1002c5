import json
from time import monotonic

import pytest

from bff.api.adapters.openai import error
from bff.errors import BY_CODE
from tests.api.chat_requests import client, client_of
from tests.broker_says import ANSWER, COMPLETED, TICKET
from tests.live import ADA, PROXY_SECRET, in_parallel, new_app
from tests.wire_server import CUT, LAST_CHUNK, WireServer, chunk, reply, stream_head

ASKING = {"model": "default", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]}


def ask(browser, more=None, **headers: str):
    return browser.post("/v1/chat/completions", json=ASKING | (more or {}), headers=ADA | headers)


def test_an_answer_is_one_object():
    response = ask(client())

    (choice,) = response.json["choices"]
    assert response.json["object"] == "chat.completion"
    assert response.json["id"] == f"chatcmpl-{response.headers['X-Message-ID']}"
    assert (choice["message"]["content"], choice["finish_reason"]) == ("hello", "stop")


def test_a_streamed_answer_has_no_ids_and_a_done():
    body = ask(client(), {"stream": True}).get_data(as_text=True)

    assert body.endswith("data: [DONE]\n\n")
    assert "\nid: " not in body, "OpenAI's client for Python stumbles over a heartbeat after one"


def test_the_broker_is_told_the_last_message_and_to_stop_for_who_leaves():
    with WireServer([TICKET], ANSWER) as broker:
        ask(client_of(broker), {"user": "eve", "temperature": 0})

    left = json.loads(broker.requests[0].body)
    assert (left["message"], left["user_id"], left["on_disconnect"]) == ("hello", "ada", "cancel")


def test_parts_of_text_are_one_message():
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]

    response = ask(client(), {"messages": [{"role": "user", "content": parts}]})

    assert response.json["choices"][0]["message"]["content"] == "one\ntwo"


BAD = {
    "no model": ({"model": None}, 400),
    "another model": ({"model": "gpt-9"}, 404),
    "no messages": ({"messages": []}, 400),
    "an image": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400),
    "a tool's answer": ({"messages": [{"role": "tool", "content": "4"}]}, 400),
    "blank": ({"messages": [{"role": "user", "content": " "}]}, 400),
}


@pytest.mark.parametrize(("more", "status"), BAD.values(), ids=BAD)
def test_a_bad_request_is_refused_in_openais_shape_and_nothing_is_left(more, status):
    with WireServer([TICKET]) as broker:
        response = ask(client_of(broker), more)

        assert response.status_code == status
        assert set(response.json["error"]) == {"message", "type", "param", "code"}
        assert not broker.requests


@pytest.mark.parametrize(
    ("steps", "status", "code"),
    [
        ([CUT], 503, "upstream_unavailable"),
        ([reply(b"{}", "429 Too Many Requests", Retry_After="7")], 429, "too_many_requests"),
    ],
)
def test_what_a_broker_refuses_is_told_in_openais_shape(steps, status, code):
    with WireServer(steps) as broker:
        response = ask(client_of(broker))

    assert (response.status_code, response.json["error"]["code"]) == (status, code)
    assert response.headers["Retry-After"]


@pytest.mark.parametrize("stream", [True, False])
def test_what_breaks_on_the_way_has_a_status_only_where_nothing_was_sent(stream):
    broken = [stream_head(), chunk(b'data: {"type":"error","error":"secret"}\n\n')]

    with WireServer([TICKET], broken) as broker:
        response = ask(client_of(broker), {"stream": stream})
        body = response.get_data(as_text=True)

    assert response.status_code == (200 if stream else 502)
    assert '"code":"upstream_error"' in body.replace('": "', '":"')
    assert "secret" not in body


RESTART = b'data: {"type":"progress","text":"Half"}\n\ndata: {"type":"restart"}\n\ndata: {"type":"progress","text":"ok"}\n\n'


def test_a_whole_answer_is_that_of_the_new_start():
    with WireServer([TICKET], [stream_head(), chunk(RESTART), COMPLETED, LAST_CHUNK]) as broker:
        response = ask(client_of(broker))

    assert response.json["choices"][0]["message"]["content"] == "ok"


@pytest.mark.parametrize(("before", "code"), [(RESTART, "interrupted"), (RESTART.partition(b"\n\n")[2], None)])
def test_a_streamed_answer_that_begins_anew_ends_with_an_error_if_words_were_sent(before, code):
    with WireServer([TICKET], [stream_head(), chunk(before), COMPLETED, LAST_CHUNK]) as broker:
        lines = ask(client_of(broker), {"stream": True}).get_data(as_text=True).split("\n\n")
        chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]

    assert chunks[-1].get("error", {}).get("code") == code
    assert lines[-2] == "data: [DONE]"
    assert ('"ok"' in "".join(lines)) == (code is None)


@pytest.mark.parametrize("kind", BY_CODE.values(), ids=BY_CODE)
def test_every_error_has_a_type_of_openais(kind):
    assert error(kind())["error"]["type"].endswith("_error")


@pytest.mark.parametrize("stream", [False, True])
def test_an_agent_answers_by_its_name_from_what_the_client_remembers(stream):
    said = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": "two words"},
    ]
    asking = {"model": "echo", "messages": said, "stream": stream}

    response = client().post("/v1/chat/completions", json=asking, headers=ADA)

    if stream:
        chunks = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "two words"
        assert response.text.endswith("data: [DONE]\n\n")
    else:
        assert response.json["choices"][0]["message"]["content"] == "two words"


def test_calls_of_one_key_run_side_by_side():
    browser = client(ECHO_WORD_SECONDS="0.2")
    asking = {"model": "echo", "messages": [{"role": "user", "content": "one two three four"}]}

    began = monotonic()
    answers = in_parallel(6, lambda _: ask(browser.application.test_client(), asking).json["choices"][0]["message"]["content"])

    assert answers == ["one two three four"] * 6
    assert monotonic() - began < 6 * 0.6


def test_an_agents_failure_has_its_own_code():
    response = ask(client(), {"model": "demo", "messages": [{"role": "user", "content": "/error"}]})

    assert (response.status_code, response.json["error"]["code"]) == (502, "upstream_error")


def test_an_agent_is_not_given_more_than_it_can_take():
    response = ask(client(), {"model": "echo", "messages": [{"role": "user", "content": "a " * 500_001}]})

    assert (response.status_code, response.json["error"]["code"]) == (413, "too_large")


def test_what_was_shown_before_and_is_no_text_does_not_stand_in_the_way():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
    said = [{"role": "user", "content": [image]}, {"role": "assistant", "content": None}, {"role": "user", "content": "hello"}]

    assert ask(client(), {"messages": said}).json["choices"][0]["message"]["content"] == "hello"


def test_the_models_are_those_the_factory_names():
    browser = client()

    listed = browser.get("/v1/models", headers=ADA).json
    assert (listed["object"], [model["id"] for model in listed["data"]]) == ("list", ["default", "echo", "demo"])
    assert browser.get("/v1/models/default", headers=ADA).json["object"] == "model"
    assert browser.get("/v1/models/gpt-9", headers=ADA).status_code == 404


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/default"])
def test_strangers_are_told_so_in_openais_shape(path):
    response = client().get(path, headers={"X-Proxy-Secret": PROXY_SECRET})

    assert (response.status_code, response.json["error"]["type"]) == (401, "authentication_error")


def test_while_we_drain_openais_clients_are_told_when_to_come_back():
    app = new_app(DRAIN_SECONDS="0.1")
    app.extensions["chat_bff"].lifecycle.drain()

    response = ask(app.test_client())

    assert (response.status_code, response.json["error"]["code"]) == (503, "server_restarting")
    assert response.headers["Retry-After"] == "1"
