"""/v1/responses: objects, streams, chains, errors."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.api.chat_requests import client
from tests.api.response_requests import checked, created, events, get, items, post, text, types
from tests.engine.agents.openai_server import BEGIN, DONE, HEAD, USAGE, full_reply, piece, settings_of, text_deltas
from tests.live import ADA, eventually, new_app, who
from tests.wire_server import CUT, HANG, LAST_CHUNK, WireServer

DELTAS = ["output_text.delta"] * 3
MESSAGE = ["output_item.added", "content_part.added", *DELTAS, "output_text.done", "content_part.done", "output_item.done"]
SLOW = "one two three four five six seven eight"


@pytest.fixture(scope="module")
def browser():
    return client(ECHO_WORD_SECONDS="0.002")


# Objects and streams


def test_a_response_is_one_object(browser):
    answer = post(browser, metadata={"topic": "words"}, temperature=0.5, instructions="Be brief.")
    response = checked(answer.json)

    assert response["id"].startswith("resp_")
    assert (response["status"], text(response)) == ("completed", "one two three")
    assert response["completed_at"] >= response["created_at"]
    assert (response["metadata"], response["temperature"]) == ({"topic": "words"}, 0.5)
    assert (response["instructions"], response["previous_response_id"], response["usage"]) == ("Be brief.", None, None)
    assert get(browser, response["id"]).json == response
    assert answer.headers["X-Message-ID"]


@pytest.mark.parametrize(("background", "queued"), [(False, []), (True, ["queued"])])
def test_a_stream_has_numbered_events(browser, background, queued):
    found = events(post(browser, stream=True, background=background).text)

    assert types(found) == ["created", *queued, "in_progress", *MESSAGE, "completed"]
    assert [event["sequence_number"] for event in found] == [*range(len(found))]
    assert found[-1]["response"] == get(browser, found[0]["response"]["id"]).json


def test_a_stream_has_no_ids_and_no_done(browser):
    body = post(browser, stream=True).text

    assert "\nid: " not in body
    assert "[DONE]" not in body


def test_every_reader_gets_the_same_events_after_any_number(browser):
    found = events(post(browser, stream=True).text)
    response_id = found[0]["response"]["id"]

    assert events(get(browser, response_id, "?stream=true").text) == found
    for number in range(len(found)):
        assert events(get(browser, response_id, f"?stream=true&starting_after={number}").text) == found[number + 1 :]


def test_the_model_default_is_the_agent_of_direct_chat(browser):
    assert text(created(browser, model="default")) == "one two three"


@pytest.mark.parametrize("stream", [False, True])
def test_text_pieces_with_half_a_character_are_joined(stream):
    halves = ["\ud83d", "\ude00"]
    with WireServer(full_reply(*halves)) as server:
        answer = post(client(**settings_of(server)), model="openai", stream=stream)
        last = answer.text.strip().rpartition("data: ")[2]
    response = json.loads(last)["response"] if stream else answer.json

    assert text(response) == "😀"


# A model's reasoning, usage and limits

THOUGHTS = [piece({"reasoning_content": text}) for text in ("Hm", "m.")]


def from_model(*frames, settings=None, **fields):
    """The events of a streamed response, and the response as it is stored."""
    with WireServer([HEAD, BEGIN, *frames, LAST_CHUNK]) as server:
        browser = client(**settings_of(server), **(settings or {}))
        found = events(post(browser, model="openai", stream=True, **fields).text)
        return found, checked(get(browser, found[0]["response"]["id"]).json), json.loads(server.requests[0].body)


def test_reasoning_is_an_item_of_its_own():
    found, stored, _ = from_model(*THOUGHTS, *text_deltas("a", "b"), piece({}, "stop"), USAGE, DONE)

    reasoning = [name.replace("output_text", "reasoning_text") for name in MESSAGE if name != "output_text.delta"]
    reasoning[2:2] = ["reasoning_text.delta"] * 2
    message = [name for name in MESSAGE if name != "output_text.delta"]
    message[2:2] = ["output_text.delta"] * 2
    assert types(found) == ["created", "in_progress", *reasoning, *message, "completed"]
    assert [event["output_index"] for event in found if "output_index" in event] == [0] * 7 + [1] * 7
    assert found[-1]["response"] == stored
    assert [item["type"] for item in stored["output"]] == ["reasoning", "message"]
    assert stored["output"][0]["content"] == [{"type": "reasoning_text", "text": "Hmm."}]
    assert text(stored) == "ab"


def test_reasoning_is_left_out_where_it_is_not_relayed():
    frames = (*THOUGHTS, *text_deltas("a"), *THOUGHTS, *text_deltas("b"), piece({}, "stop"), USAGE, DONE)
    found, stored, _ = from_model(*frames, settings={"RELAY_REASONING": "0"})

    assert not any("reasoning" in name for name in types(found))
    assert found[-1]["response"] == stored
    assert ([item["type"] for item in stored["output"]], text(stored)) == (["message"], "ab")


def test_the_usage_is_the_models():
    found, stored, _ = from_model(*text_deltas("a"), piece({}, "stop"), USAGE, DONE)

    assert found[-1]["response"]["usage"] == stored["usage"]
    assert [stored["usage"][name] for name in ("input_tokens", "output_tokens", "total_tokens")] == [19, 10, 29]


def test_a_truncated_response_is_incomplete():
    found, stored, _ = from_model(*text_deltas("a"), piece({}, "length"), USAGE, DONE)

    assert found[-1]["type"] == "response.incomplete"
    assert found[-1]["response"] == stored
    assert (stored["status"], stored["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert (stored["output"][0]["status"], stored["completed_at"]) == ("incomplete", None)


def test_a_model_gets_instructions_and_parameters():
    fields = {"temperature": 0, "top_p": 0.5, "stop": "END", "seed": 7, "max_output_tokens": 9}
    *_, sent = from_model(
        *text_deltas("a"),
        piece({}, "stop"),
        DONE,
        instructions="Be brief.",
        text={"format": {"type": "json_schema", "name": "answer", "schema": {"type": "object"}}},
        tools=[{"type": "function", "name": "add", "parameters": {}}],
        **fields,
    )

    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one two three"}]
    assert sent["max_completion_tokens"] == 9
    assert {name: sent[name] for name in fields if name != "max_output_tokens"} == {
        name: fields[name] for name in fields if name != "max_output_tokens"
    }
    assert sent["response_format"] == {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}
    assert "tools" not in sent


def test_a_failed_response_is_an_error_status_and_is_stored_as_failed():
    with WireServer([HEAD, BEGIN, *text_deltas("a"), CUT], [HEAD, BEGIN, *text_deltas("a"), CUT]) as server:
        browser = client(**settings_of(server))
        streamed = events(post(browser, model="openai", stream=True).text)
        whole = post(browser, model="openai")

    assert types(streamed)[-1] == "failed"
    failed = streamed[-1]["response"]
    assert (failed["status"], failed["output"], failed["error"]["code"]) == ("failed", [], "server_error")
    assert checked(get(browser, failed["id"]).json) == failed
    assert (whole.status_code, whole.json["error"]["code"]) == (failed_status(failed), failed["error"]["type"])


def failed_status(failed) -> int:
    return {"answer_incomplete": 502, "upstream_unavailable": 503, "upstream_error": 502}[failed["error"]["type"]]


# Chains


def remembering(server: WireServer) -> list[list[str]]:
    """What the model was sent, request by request."""
    return [[message["content"] for message in json.loads(request.body)["messages"]] for request in server.requests]


def test_a_chain_of_ten_has_its_history_and_a_fork_has_its_own():
    replies = [full_reply(f"r{number}") for number in range(12)]
    with WireServer(*replies) as server:
        browser = client(**settings_of(server))
        chain = [created(browser, "q0", model="openai")]
        for number in range(1, 10):
            chain.append(created(browser, f"q{number}", model="openai", previous_response_id=chain[-1]["id"]))
        fork = created(browser, "f", model="openai", previous_response_id=chain[3]["id"])
        created(browser, "g", model="openai", previous_response_id=fork["id"])
        sent = remembering(server)

    turns = [text for number in range(10) for text in (f"q{number}", f"r{number}")]
    assert sent[9] == [*turns[:18], "q9"]
    assert sent[10] == [*turns[:8], "f"]
    assert sent[11] == [*turns[:8], "f", "r10", "g"]
    assert chain[9]["previous_response_id"] == chain[8]["id"]


def test_instructions_are_not_carried_over_and_input_items_are():
    content = [
        {"role": "developer", "content": "In English."},
        {"role": "user", "content": [{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "three"}]},
        {"role": "user", "content": "four"},
    ]
    with WireServer(full_reply("five"), full_reply("seven")) as server:
        browser = client(**settings_of(server))
        first = created(browser, content, model="openai", instructions="Be brief.")
        created(browser, "six", model="openai", previous_response_id=first["id"])
        sent = remembering(server)
        listed = items(get(browser, first["id"], "/input_items?order=asc").json)

    assert sent[0] == ["Be brief.", "In English.", "one\ntwo", "three", "four"]
    assert sent[1] == ["In English.", "one\ntwo", "three", "four", "five", "six"]
    assert [[part["text"] for part in item["content"]] for item in listed] == [
        ["In English."],
        ["one", "two"],
        ["three"],
        ["four"],
    ]
    assert [item["role"] for item in listed] == ["developer", "user", "assistant", "user"]


def test_input_items_have_pages(browser):
    content = [{"role": "user", "content": str(number)} for number in range(5)]
    response_id = created(browser, content)["id"]

    def page(query):
        answer = get(browser, response_id, f"/input_items?{query}").json
        return [item["content"][0]["text"] for item in items(answer)], answer["has_more"], answer["last_id"]

    assert page("")[:2] == (["4", "3", "2", "1", "0"], False)
    first, more, last = page("limit=2")
    assert (first, more) == (["4", "3"], True)
    assert page(f"limit=2&after={last}")[:2] == (["2", "1"], True)
    assert page("order=asc&limit=100")[0] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "order=up", "after=msg_1", "include[]=a"])
def test_an_invalid_page_is_refused(browser, query):
    answer = get(browser, created(browser)["id"], f"/input_items?{query}")

    assert (answer.status_code, answer.json["error"]["param"]) == (400, query.partition("=")[0].removesuffix("[]"))


def test_a_deleted_response_is_gone_and_the_chain_goes_on_without_it():
    with WireServer(*[full_reply(f"r{number}") for number in range(4)]) as server:
        browser = client(**settings_of(server))
        first = created(browser, "q0", model="openai")
        second = created(browser, "q1", model="openai", previous_response_id=first["id"])
        third = created(browser, "q2", model="openai", previous_response_id=second["id"])
        deleted = browser.delete(f"/v1/responses/{second['id']}", headers=ADA)
        again = browser.delete(f"/v1/responses/{second['id']}", headers=ADA)
        created(browser, "q3", model="openai", previous_response_id=third["id"])
        sent = remembering(server)

    assert (deleted.json, again.status_code) == ({"id": second["id"], "object": "response", "deleted": True}, 404)
    for path in ("", "?stream=true", "/input_items"):
        assert get(browser, second["id"], path).status_code == 404
    assert post(browser, previous_response_id=second["id"]).json["error"]["code"] == "previous_response_not_found"
    assert sent[3] == ["q0", "r0", "q2", "r2", "q3"]


def test_responses_are_not_listed_as_conversations(browser):
    created(browser, user="lister")

    assert browser.get("/api/conversations", headers=who("lister")).json["conversations"] == []
    assert browser.get("/api/chat/history", headers=who("lister")).json["total_count"] == 0


# Not stored


def test_an_unstored_response_is_not_kept_but_may_follow_a_stored_one():
    with WireServer(full_reply("r0"), full_reply("r1")) as server:
        browser = client(**settings_of(server))
        first = created(browser, "q0", model="openai")
        second = created(browser, "q1", model="openai", previous_response_id=first["id"], store=False, instructions="Brief.")
        sent = remembering(server)

    assert sent[1] == ["Brief.", "q0", "r0", "q1"]
    assert (text(second), second["store"]) == ("r1", False)
    for path in ("", "?stream=true", "/input_items"):
        assert get(browser, second["id"], path).status_code == 404
    assert post(browser, previous_response_id=second["id"]).status_code == 400


def test_an_unstored_response_is_streamed(browser):
    found = events(post(browser, stream=True, store=False).text)

    assert types(found) == ["created", "in_progress", *MESSAGE, "completed"]


# In the background


def ended(browser, response_id):
    return eventually(lambda: (found := get(browser, response_id).json)["status"] not in {"queued", "in_progress"} and found)


def test_a_response_in_the_background_is_polled():
    browser = client(ECHO_WORD_SECONDS="0.05")
    response = created(browser, SLOW, background=True)

    assert (response["status"] in {"queued", "in_progress"}, response["output"]) == (True, [])
    done = checked(ended(browser, response["id"]))
    assert (done["status"], text(done)) == ("completed", SLOW)


@pytest.mark.parametrize("background", [True, False])
def test_a_running_response_is_cancelled(background):
    with WireServer([HEAD, BEGIN, *text_deltas("a"), HANG]) as server, ThreadPoolExecutor(1) as pool:
        browser = client(**settings_of(server))
        reader = browser.application.test_client()
        stream = post(reader, model="openai", stream=True, background=background)
        frames = iter(stream.response)
        begun = b""
        while b"delta" not in begun:
            begun += next(frames)
        response_id = events(begun.decode())[0]["response"]["id"]
        rest = pool.submit(lambda: b"".join(frames))
        cancelled = browser.post(f"/v1/responses/{response_id}/cancel", headers=ADA)
        last = events((begun + rest.result(10)).decode())[-1]

    assert checked(cancelled.json)["status"] == "cancelled"
    assert (last["type"], last["response"]) == ("response.incomplete", cancelled.json)
    assert browser.post(f"/v1/responses/{response_id}/cancel", headers=ADA).json == cancelled.json
    assert post(browser, previous_response_id=response_id).json["error"]["param"] == "previous_response_id"


def test_a_finished_response_is_not_cancelled(browser):
    response = created(browser)

    assert browser.post(f"/v1/responses/{response['id']}/cancel", headers=ADA).json == response


def test_a_running_response_is_deleted():
    with WireServer([HEAD, BEGIN, *text_deltas("a"), HANG]) as server:
        browser = client(**settings_of(server))
        response_id = created(browser, model="openai", background=True)["id"]
        assert eventually(lambda: server.requests)
        assert browser.delete(f"/v1/responses/{response_id}", headers=ADA).json["deleted"] is True

        assert server.wait_for(lambda: server.hung_up == 1, 10)
    assert get(browser, response_id).status_code == 404


def test_events_that_are_no_longer_kept_are_410():
    browser = client(RETENTION_SECONDS="0.01")
    response_id = created(browser)["id"]

    assert eventually(lambda: get(browser, response_id, "?stream=true").status_code == 410, 10)
    assert get(browser, response_id).json["status"] == "completed"


# Idempotency


@pytest.mark.parametrize("store", [True, False])
def test_a_request_with_the_same_key_gets_the_same_response(browser, store):
    user = f"key-{store}"
    first = created(browser, user=user, key="k", store=store)
    second = created(browser, user=user, key="k", store=store)
    streamed = events(post(browser, user=user, key="k", store=store, stream=True).text)

    assert second["id"] == first["id"] == streamed[-1]["response"]["id"]
    assert text(second) == text(streamed[-1]["response"]) == "one two three"
    assert created(browser, user=f"another-{store}", key="k", store=store)["id"] != first["id"]


@pytest.mark.parametrize("store", [True, False])
def test_another_request_with_the_same_key_is_refused(browser, store):
    post(browser, user=f"conflict-{store}", key="k", store=store)
    answer = post(browser, "another", user=f"conflict-{store}", key="k", store=store)

    assert (answer.status_code, answer.json["error"]["code"]) == (422, "idempotency_conflict")


def test_simultaneous_requests_with_one_key_are_one_response():
    app = new_app(ECHO_WORD_SECONDS="0.05")
    with ThreadPoolExecutor(6) as pool:
        ids = {answer.json["id"] for answer in pool.map(lambda _: post(app.test_client(), key="k", user="many"), range(6))}

    assert len(ids) == 1


@pytest.mark.parametrize("name", ["text", "tools", "tool_choice"])
def test_a_number_that_is_too_large_for_json_is_refused(browser, name):
    values = {"text": '{"format": {"type": "text", "x": [-1e999]}}', "tools": '[{"x": 1e999}]', "tool_choice": "1e999"}
    body = f'{{"model": "echo", "input": "hello", "{name}": {values[name]}}}'

    answer = browser.post("/v1/responses", data=body, content_type="application/json", headers=ADA)

    assert (answer.status_code, answer.json["error"]["param"]) == (400, name)


def test_an_invalid_key_is_refused(browser):
    assert post(browser, key="é" * 200).status_code == 400


# Users


def test_a_response_of_another_user_is_not_found(browser):
    response_id = created(browser, user="owner")["id"]

    answers = [
        *(get(browser, response_id, path, user="thief") for path in ("", "?stream=true", "/input_items")),
        browser.post(f"/v1/responses/{response_id}/cancel", headers=who("thief")),
        browser.delete(f"/v1/responses/{response_id}", headers=who("thief")),
    ]
    for answer in answers:
        assert (answer.status_code, answer.json["error"]["type"]) == (404, "not_found_error")
    stolen = post(browser, user="thief", previous_response_id=response_id)
    assert (stolen.status_code, stolen.json["error"]["code"]) == (400, "previous_response_not_found")
    assert get(browser, response_id, user="owner").status_code == 200


@pytest.mark.parametrize("response_id", ["resp_1", "x", "resp_" + "0" * 32, "RESP_" + "0" * 32, "resp_" + "-" * 32])
def test_an_unknown_response_is_not_found(browser, response_id):
    for path in ("", "?stream=true", "/input_items"):
        assert get(browser, response_id, path).status_code == 404


# Errors

USER = {"role": "user"}
INVALID = {
    "no model": ({"model": None}, "model"),
    "no input": ({"input": None}, "input"),
    "blank": ({"input": " "}, "input"),
    "no items": ({"input": []}, "input"),
    "a NUL": ({"input": "a\0b"}, "input"),
    "an image": ({"input": [USER | {"content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0]"),
    "a file": (
        {"input": [USER | {"content": [{"type": "input_text", "text": "a"}, {"type": "input_file"}]}]},
        "input[0].content[1]",
    ),
    "a tool's output": (
        {"input": [USER | {"content": "a"}, {"type": "function_call_output", "call_id": "1", "output": "2"}]},
        "input[1]",
    ),
    "an item by reference": ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
    "no role": ({"input": [{"content": "a"}]}, "input[0].role"),
    "no content": ({"input": [USER]}, "input[0].content"),
    "an item that is text": ({"input": ["a"]}, "input[0]"),
    "the assistant last": ({"input": [{"role": "assistant", "content": "a"}]}, "input"),
    "a required tool": ({"tool_choice": "required", "tools": []}, "tool_choice"),
    "a schema": ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {}}}}, "text.format"),
    "an unknown format": ({"text": {"format": {"type": "xml"}}}, "text.format"),
    "a conversation": ({"conversation": "conv_1"}, "conversation"),
    "a prompt": ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    "include": ({"include": ["reasoning.encrypted_content"]}, "include"),
    "logprobs": ({"top_logprobs": 3}, "top_logprobs"),
    "in the background, not stored": ({"background": True, "store": False}, "background"),
    "too much metadata": ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
    "a long key": ({"metadata": {"k" * 65: ""}}, "metadata"),
    "a long value": ({"metadata": {"k": "v" * 513}}, "metadata"),
    "metadata that is no text": ({"metadata": {"k": 1}}, "metadata"),
    "temperature": ({"temperature": "hot"}, "temperature"),
    "max_output_tokens": ({"max_output_tokens": 0}, "max_output_tokens"),
    "truncation": ({"truncation": "always"}, "truncation"),
    "an unknown previous response": ({"previous_response_id": "resp_" + "0" * 32}, "previous_response_id"),
    "a strange previous response": ({"previous_response_id": "a"}, "previous_response_id"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fields", "param"), INVALID.values(), ids=INVALID)
def test_an_unsupported_request_is_refused_with_its_param(browser, fields, param, stream):
    answer = post(browser, **{"content": "hello", "stream": stream} | {"input": "hello"} | fields)

    assert answer.status_code == 400
    assert (answer.json["error"]["type"], answer.json["error"]["param"]) == ("invalid_request_error", param)


SUPPORTED = {
    "empty parameters": {"include": [], "conversation": None, "prompt": None, "top_logprobs": 0, "tools": []},
    "hints": {"reasoning": {"effort": "low"}, "service_tier": "auto", "stream_options": {"include_obfuscation": False}},
    "a tool": {"tools": [{"type": "function", "name": "add", "parameters": {}}], "tool_choice": "auto"},
    "text": {"text": {"format": {"type": "text"}, "verbosity": "low"}},
    "names": {"user": "eve", "safety_identifier": "s", "prompt_cache_key": "p", "truncation": "auto"},
}


@pytest.mark.parametrize("fields", SUPPORTED.values(), ids=SUPPORTED)
def test_a_supported_request_is_answered(browser, fields):
    assert text(created(browser, **fields)) == "one two three"


@pytest.mark.parametrize(
    "query", ["starting_after=1", "stream=true&starting_after=-1", "stream=true&starting_after=x", "stream=x"]
)
def test_an_invalid_query_is_refused(browser, query):
    answer = get(browser, created(browser)["id"], f"?{query}")

    assert (answer.status_code, answer.json["error"]["type"]) == (400, "invalid_request_error")
    assert answer.json["error"]["param"] in query


def test_an_unknown_model_is_not_found(browser):
    answer = post(browser, model="gpt-9")

    assert (answer.status_code, answer.json["error"]["type"]) == (404, "not_found_error")


def test_a_hasty_user_is_refused():
    browser = client(MESSAGES_PER_MINUTE="1")
    created(browser, user="hasty")
    answer = post(browser, user="hasty")

    assert (answer.status_code, answer.json["error"]["type"]) == (429, "rate_limit_error")
    assert answer.headers["Retry-After"]
