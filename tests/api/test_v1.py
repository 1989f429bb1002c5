import json
from time import monotonic

import pytest

from bff.api.adapters.openai import error
from bff.errors import BY_CODE
from tests.api.chat_requests import client, client_of
from tests.broker_responses import COMPLETED, RECEIPT, REPLY
from tests.engine.agents.openai_server import DONE, HEAD, full_reply, piece, settings_of
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
    "NaN": ({"metadata": {"a": float("nan")}}, 400),
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


# What an agent's model gets


def complete_with_model(extra, model_reply=None, model: str = "openai", **settings: str):
    """The response, and the request to the model's server (None if there was none)."""
    with WireServer(model_reply or full_reply("ok")) as server:
        response = complete(client(**settings_of(server), **settings), {"model": model} | extra)
        response.get_data()
    return response, json.loads(server.requests[0].body) if server.requests else None


SAMPLING = {
    "temperature": 0.2,
    "top_p": 1,
    "max_tokens": 5,
    "max_completion_tokens": 6,
    "stop": ["\n", "END"],
    "seed": 7,
    "frequency_penalty": -0.5,
    "presence_penalty": 2,
    "user": "eve",
}


@pytest.mark.parametrize("stream", [True, False])
def test_a_model_gets_the_sampling_parameters(stream):
    extra = {"stream": stream, "stop": "END", "seed": None, "logit_bias": {}, "metadata": {}}

    response, sent = complete_with_model(SAMPLING | extra)

    assert response.status_code == 200
    parameters = {name: sent[name] for name in sent if name not in {"model", "messages", "stream"}}
    assert parameters == {name: value for name, value in SAMPLING.items() if name != "seed"} | {"stop": "END"}
    assert (sent["model"], sent["stream"]) == ("small", True)


def test_a_model_gets_the_instructions_and_the_history():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "In English."}]},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three", "name": "ada"},
    ]

    assert complete_with_model({"messages": messages})[1]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "In English."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]


CALL = {"id": "call-1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
TOOL_TURNS = [
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "4", "tool_call_id": "call-1"},
]
LAST_MESSAGES = {
    "tool": TOOL_TURNS,
    "assistant": [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "One, two,"}],
}


@pytest.mark.parametrize("messages", LAST_MESSAGES.values(), ids=LAST_MESSAGES)
def test_last_messages_of_other_roles_go_to_an_agent_that_can_use_them(messages):
    response, sent = complete_with_model({"messages": messages})

    assert response.json["choices"][0]["message"]["content"] == "ok"
    assert sent["messages"] == [message | {"content": message["content"] or ""} for message in messages]


@pytest.mark.parametrize("model", ["default", "echo"])
@pytest.mark.parametrize(
    "messages", [*LAST_MESSAGES.values(), [{"role": "system", "content": "hi"}]], ids=[*LAST_MESSAGES, "system"]
)
def test_last_messages_of_other_roles_are_refused_elsewhere(messages, model):
    response, sent = complete_with_model({"messages": messages}, model=model)

    assert (response.status_code, response.json["error"]["param"], sent) == (400, "messages", None)


def test_messages_of_tools_are_left_out_for_other_agents():
    response, _ = complete_with_model({"messages": [*TOOL_TURNS, {"role": "user", "content": "hello"}]}, model="echo")

    assert response.json["choices"][0]["message"]["content"] == "hello"


@pytest.mark.parametrize("kind", ["json_schema", "json_object"])
def test_a_response_format_is_passed_on_or_refused(kind):
    extra = {"response_format": {"type": kind}}

    passed, sent = complete_with_model(extra)
    refused = [complete(client(), extra | {"model": model}) for model in ("default", "echo")]

    assert (passed.status_code, sent["response_format"]) == (200, {"type": kind})
    assert [(response.status_code, response.json["error"]["param"]) for response in refused] == [(400, "response_format")] * 2


TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}
REQUIRED = {
    "required": {"tools": [TOOL], "tool_choice": "required"},
    "a function": {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "add"}}},
    "allowed tools": {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required"}}},
    "nonsense": {"tools": [TOOL], "tool_choice": 5},
}
OPTIONAL = {
    "no choice": {"tools": [TOOL]},
    "auto": {"tools": [TOOL], "tool_choice": "auto"},
    "none": {"tools": [TOOL], "tool_choice": "none", "functions": [], "function_call": "auto"},
    "allowed tools": {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}},
    "plain text": {"response_format": {"type": "text"}},
    "one choice": {"n": 1},
}


@pytest.mark.parametrize("model", ["default", "echo", "openai"])
@pytest.mark.parametrize("extra", REQUIRED.values(), ids=REQUIRED)
def test_a_required_tool_is_refused(extra, model):
    response, sent = complete_with_model(extra, model=model)

    assert (response.status_code, response.json["error"]["param"], sent) == (400, "tool_choice", None)


def test_a_required_function_is_refused():
    response, _ = complete_with_model({"functions": [TOOL["function"]], "function_call": {"name": "add"}})

    assert (response.status_code, response.json["error"]["param"]) == (400, "function_call")


@pytest.mark.parametrize("model", ["default", "echo", "openai"])
@pytest.mark.parametrize("extra", OPTIONAL.values(), ids=OPTIONAL)
def test_optional_tools_are_not_called(extra, model):
    response, sent = complete_with_model(extra, model=model)

    assert response.status_code == 200
    assert sent is None or not {"tools", "tool_choice", "functions", "function_call"} & sent.keys()


BAD_VALUES = {
    "n": [2, 0, "many"],
    "temperature": ["hot", float("nan"), float("inf"), [1]],
    "max_tokens": [0, -1, 1.5, "all"],
    "max_completion_tokens": [0],
    "stop": [5, [5]],
    "seed": ["x"],
    "user": [5],
    "response_format": ["json"],
    "stream_options": [5],
    "messages": [[], [{"content": "no role"}], [{"role": "user", "content": [{"type": "image_url"}]}], "hi"],
    "model": [None, 5],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD_VALUES.items() for value in values])
@pytest.mark.parametrize("model", ["default", "echo"])
def test_an_invalid_parameter_is_named(name, value, model):
    response = complete(client(), {"model": model, name: value})

    assert response.status_code == 400
    problem = response.json["error"]
    assert (problem["type"], problem["code"], problem["param"]) == ("invalid_request_error", "invalid_request", name)


TOO_LARGE = {
    "response_format": '{"type": "json_schema", "json_schema": {"name": "x", "schema": {"maximum": 1e999}}}',
    "tools": '[{"type": "function", "function": {"name": "f", "parameters": {"maximum": -1e999}}}]',
    "tool_choice": '{"type": "function", "function": {"name": 1e999}}',
    "messages": '[{"role": "assistant", "tool_calls": [{"id": 1e999}]}, {"role": "user", "content": "hello"}]',
}


@pytest.mark.parametrize(("name", "value"), TOO_LARGE.items())
def test_a_number_that_is_too_large_for_json_reaches_no_model(name, value):
    parameters = {"model": '"openai"', "messages": '[{"role": "user", "content": "hello"}]', name: value}
    body = ",".join(f'"{name}": {value}' for name, value in parameters.items())

    with WireServer(full_reply("ok")) as server:
        browser = client(**settings_of(server))
        response = browser.post("/v1/chat/completions", data=f"{{{body}}}", content_type="application/json", headers=ADA)

    assert (response.status_code, response.json["error"]["param"]) == (400, name)
    assert not server.requests


def test_calls_with_the_same_idempotency_key_are_one_reply():
    browser = client(ECHO_WORD_SECONDS="0")
    content = {"model": "echo", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}

    same = [complete(browser, content, **{"Idempotency-Key": "key-1"}) for _ in range(2)]
    other = complete(browser, content, **{"Idempotency-Key": "key-2"})
    conflict = complete(browser, content | {"temperature": 1}, **{"Idempotency-Key": "key-1"})

    assert same[0].json["id"] == same[1].json["id"] != other.json["id"]
    assert (conflict.status_code, conflict.json["error"]["code"]) == (422, "idempotency_conflict")


# The end of a reply


def broker_reply(response, text: str = ""):
    """A broker's stream that ends with `complete`."""
    progress = [chunk(f'data: {{"type":"progress","text":{json.dumps(text)}}}\n\n'.encode())] if text else []
    content = {"type": "complete", "response": response}
    return [stream_head(), *progress, chunk(f"data: {json.dumps(content)}\n\n".encode()), LAST_CHUNK]


def chunks_of(response) -> list[dict]:
    lines = response.get_data(as_text=True).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15, "prompt_tokens_details": {"cached_tokens": 2}}
ZEROS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
USAGES = {
    "reported": (USAGE, USAGE),
    "in part": ({"prompt_tokens": 12}, ZEROS | {"prompt_tokens": 12}),
    "none": (None, ZEROS),
    "nonsense": ({"prompt_tokens": "many"}, ZEROS),
    "no object": ([1], ZEROS),
}


def with_usage(usage) -> dict:
    return {"responses": ["ok"]} | ({} if usage is None else {"usage": usage})


@pytest.mark.parametrize(("usage", "shown"), USAGES.values(), ids=USAGES)
def test_the_last_chunk_has_the_usage_if_it_is_requested(usage, shown):
    with WireServer([RECEIPT], broker_reply(with_usage(usage))) as broker:
        extra = {"stream": True, "stream_options": {"include_usage": True}}
        *others, finish, last = chunks_of(complete(client_of(broker), extra))

    assert (last["choices"], last["usage"]) == ([], shown)
    assert last.keys() == others[0].keys()
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert [chunk["usage"] for chunk in (*others, finish)] == [None] * (len(others) + 1)


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}])
def test_no_chunk_has_usage_unless_it_is_requested(options):
    with WireServer([RECEIPT], broker_reply(with_usage(USAGE))) as broker:
        chunks = chunks_of(complete(client_of(broker), {"stream": True, "stream_options": options}))

    assert all(len(chunk["choices"]) == 1 and "usage" not in chunk for chunk in chunks)


@pytest.mark.parametrize(("usage", "shown"), USAGES.values(), ids=USAGES)
@pytest.mark.parametrize("requested", [True, False])
def test_a_whole_completion_has_the_usage_that_the_model_reported(usage, shown, requested):
    with WireServer([RECEIPT], broker_reply(with_usage(usage))) as broker:
        completion = complete(client_of(broker), {"stream_options": {"include_usage": requested}}).json

    assert completion.get("usage") == (shown if requested or shown != ZEROS else None)


def test_usage_is_requested_of_the_model_if_the_client_requests_it():
    assert complete_with_model({"stream": True, "stream_options": {"include_usage": True}})[1]["stream_options"] == {
        "include_usage": True
    }
    assert "stream_options" not in complete_with_model({"stream": True, "stream_options": {"include_usage": False}})[1]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("truncated", "reason"), [(True, "length"), (False, "stop"), (None, "stop")])
def test_a_truncated_reply_has_the_finish_reason_length(truncated, reason, stream):
    with WireServer([RECEIPT], broker_reply({"responses": ["In the"], "truncated": truncated}, "In the")) as broker:
        response = complete(client_of(broker), {"stream": stream})
        choice = (chunks_of(response)[-1] if stream else response.json)["choices"][0]

    assert choice["finish_reason"] == reason
    assert stream or choice["message"]["content"] == "In the"


EMPTY = {
    "nothing": ([], ""),
    "no text": (["", ""], ""),
    "blank": ([" \n"], ""),
    "blank pieces": ([], " "),
    "both": ([" "], "\n"),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("texts", "piece"), EMPTY.values(), ids=EMPTY)
def test_an_empty_reply_is_an_error(texts, piece, stream):
    with WireServer([RECEIPT], broker_reply({"responses": texts, "truncated": True}, piece)) as broker:
        response = complete(client_of(broker), {"stream": stream, "stream_options": {"include_usage": True}})
        last = chunks_of(response)[-1] if stream else response.json

    assert response.status_code == (200 if stream else 502)
    assert (last["error"]["code"], last["error"]["type"]) == ("answer_incomplete", "server_error")


def test_the_text_of_the_end_counts_if_blank_pieces_came_before_it():
    with WireServer([RECEIPT], broker_reply({"responses": ["ok"]}, "\n")) as broker:
        chunks = chunks_of(complete(client_of(broker), {"stream": True}))

    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "\nok"


@pytest.mark.parametrize("stream", [True, False])
def test_an_agents_empty_reply_is_an_error(stream):
    empty = [HEAD, piece({"role": "assistant", "content": ""}), piece({}, "stop"), DONE, LAST_CHUNK]

    response, _ = complete_with_model({"stream": stream, "messages": [{"role": "user", "content": "hello"}]}, empty)
    last = chunks_of(response)[-1] if stream else response.json

    assert last["error"]["code"] == "answer_incomplete"


# Unknown routes


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1", 404, "not_found"),
        ("GET", "/v1/", 404, "not_found"),
        ("POST", "/v1/embeddings", 404, "not_found"),
        ("POST", "/v1/chat/completions/", 404, "not_found"),
        ("GET", "/v1/responses/resp_1", 404, "not_found"),
        ("GET", "/v1/models/gpt-9", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models/default", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
    ],
)
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_unknown_routes_and_wrong_methods_have_openais_shape(method, path, status, code, accept):
    response = client().open(path, method=method, json={} if method == "POST" else None, headers=ADA | {"Accept": accept})

    assert (response.status_code, response.json["error"]["code"]) == (status, code)
    assert response.json["error"].keys() == {"message", "type", "param", "code"}
    assert response.headers["X-Request-ID"]
    assert ("Allow" in response.headers) == (status == 405)


def test_other_routes_keep_their_shape():
    assert client().get("/v1x", headers=ADA).json.keys() == {"error", "code", "request_id"}
