import json
from time import monotonic

import pytest

from bff.api.adapters.openai import error
from bff.errors import BY_CODE
from tests.api.chat_requests import client, client_of
from tests.broker_responses import COMPLETED, RECEIPT, REPLY
from tests.live import ADA, PROXY_SECRET, in_parallel, new_app
from tests.wire_server import CUT, LAST_CHUNK, WireServer, chunk, reply, stream_head

REQUEST = {"model": "default", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]}


def complete(browser, extra=None, **headers: str):
    return browser.post("/v1/chat/completions", json=REQUEST | (extra or {}), headers=ADA | headers)


def test_a_completion_is_one_object():
    response = complete(client())

    (choice,) = response.json["choices"]
    assert response.json["object"] == "chat.completion"
    assert response.json["id"] == f"chatcmpl-{response.headers['X-Message-ID']}"
    assert (choice["message"]["content"], choice["finish_reason"]) == ("hello", "stop")


def test_a_streamed_completion_ends_with_done_and_has_no_ids():
    body = complete(client(), {"stream": True}).get_data(as_text=True)

    assert body.endswith("data: [DONE]\n\n")
    assert "\nid: " not in body, "OpenAI's client for Python fails at a heartbeat after an id"


def test_the_last_message_is_enqueued_and_cancelled_on_disconnect():
    with WireServer([RECEIPT], REPLY) as broker:
        complete(client_of(broker), {"user": "eve", "temperature": 0})

    enqueued = json.loads(broker.requests[0].body)
    assert (enqueued["message"], enqueued["user_id"], enqueued["on_disconnect"]) == ("hello", "ada", "cancel")


def test_text_parts_are_joined():
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]

    response = complete(client(), {"messages": [{"role": "user", "content": parts}]})

    assert response.json["choices"][0]["message"]["content"] == "one\ntwo"


INVALID = {
    "no model": ({"model": None}, 400),
    "another model": ({"model": "gpt-9"}, 404),
    "no messages": ({"messages": []}, 400),
    "an image": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400),
    "a tool's answer": ({"messages": [{"role": "tool", "content": "4"}]}, 400),
    "blank": ({"messages": [{"role": "user", "content": " "}]}, 400),
}


@pytest.mark.parametrize(("extra", "status"), INVALID.values(), ids=INVALID)
def test_an_invalid_request_is_refused_in_openais_shape(extra, status):
    with WireServer([RECEIPT]) as broker:
        response = complete(client_of(broker), extra)

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
def test_errors_of_the_broker_have_openais_shape(steps, status, code):
    with WireServer(steps) as broker:
        response = complete(client_of(broker))

    assert (response.status_code, response.json["error"]["code"]) == (status, code)
    assert response.headers["Retry-After"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_failed_reply_has_an_error_status_unless_streamed(stream):
    broken = [stream_head(), chunk(b'data: {"type":"error","error":"secret"}\n\n')]

    with WireServer([RECEIPT], broken) as broker:
        response = complete(client_of(broker), {"stream": stream})
        body = response.get_data(as_text=True)

    assert response.status_code == (200 if stream else 502)
    assert '"code":"upstream_error"' in body.replace('": "', '":"')
    assert "secret" not in body


RESTART = b'data: {"type":"progress","text":"Half"}\n\ndata: {"type":"restart"}\n\ndata: {"type":"progress","text":"ok"}\n\n'


def test_a_completion_has_the_text_after_a_restart():
    with WireServer([RECEIPT], [stream_head(), chunk(RESTART), COMPLETED, LAST_CHUNK]) as broker:
        response = complete(client_of(broker))

    assert response.json["choices"][0]["message"]["content"] == "ok"


@pytest.mark.parametrize(("events", "code"), [(RESTART, "interrupted"), (RESTART.partition(b"\n\n")[2], None)])
def test_a_restart_after_streamed_text_is_an_error(events, code):
    with WireServer([RECEIPT], [stream_head(), chunk(events), COMPLETED, LAST_CHUNK]) as broker:
        lines = complete(client_of(broker), {"stream": True}).get_data(as_text=True).split("\n\n")
        chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]

    assert chunks[-1].get("error", {}).get("code") == code
    assert lines[-2] == "data: [DONE]"
    assert ('"ok"' in "".join(lines)) == (code is None)


@pytest.mark.parametrize("kind", BY_CODE.values(), ids=BY_CODE)
def test_every_error_has_an_openai_type(kind):
    assert error(kind())["error"]["type"].endswith("_error")


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_is_an_agent_with_the_clients_history(stream):
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": "two words"},
    ]
    content = {"model": "echo", "messages": messages, "stream": stream}

    response = client().post("/v1/chat/completions", json=content, headers=ADA)

    if stream:
        chunks = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "two words"
        assert response.text.endswith("data: [DONE]\n\n")
    else:
        assert response.json["choices"][0]["message"]["content"] == "two words"


def test_requests_of_one_user_run_concurrently():
    browser = client(ECHO_WORD_SECONDS="0.2")
    content = {"model": "echo", "messages": [{"role": "user", "content": "one two three four"}]}

    started_at = monotonic()
    texts = in_parallel(
        6, lambda _: complete(browser.application.test_client(), content).json["choices"][0]["message"]["content"]
    )

    assert texts == ["one two three four"] * 6
    assert monotonic() - started_at < 6 * 0.6


def test_a_failed_agent_is_an_upstream_error():
    response = complete(client(), {"model": "demo", "messages": [{"role": "user", "content": "/error"}]})

    assert (response.status_code, response.json["error"]["code"]) == (502, "upstream_error")


def test_the_history_of_an_agent_is_limited():
    response = complete(client(), {"model": "echo", "messages": [{"role": "user", "content": "a " * 500_001}]})

    assert (response.status_code, response.json["error"]["code"]) == (413, "too_large")


def test_earlier_messages_may_have_images():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
    messages = [
        {"role": "user", "content": [image]},
        {"role": "assistant", "content": None},
        {"role": "user", "content": "hello"},
    ]

    assert complete(client(), {"messages": messages}).json["choices"][0]["message"]["content"] == "hello"


def test_models_are_listed():
    browser = client()

    models = browser.get("/v1/models", headers=ADA).json
    assert (models["object"], [model["id"] for model in models["data"]]) == ("list", ["default", "echo", "demo"])
    assert browser.get("/v1/models/default", headers=ADA).json["object"] == "model"
    assert browser.get("/v1/models/gpt-9", headers=ADA).status_code == 404


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/default"])
def test_authentication_errors_have_openais_shape(path):
    response = client().get(path, headers={"X-Proxy-Secret": PROXY_SECRET})

    assert (response.status_code, response.json["error"]["type"]) == (401, "authentication_error")


def test_a_draining_process_sends_retry_after():
    app = new_app(DRAIN_SECONDS="0.1")
    app.extensions["chat_bff"].lifecycle.drain()

    response = complete(app.test_client())

    assert (response.status_code, response.json["error"]["code"]) == (503, "server_restarting")
    assert response.headers["Retry-After"] == "1"
