"""The official JavaScript clients of each protocol against a live server. Each script returns the results of its cases."""

from typing import Any

import pytest

from bff.engine.agents.demo import UNICODE

pytestmark = [pytest.mark.live, pytest.mark.timeout(90)]

ERROR_MESSAGE = "The assistant could not answer. Please try again."
FIVE = "one two three four five"


@pytest.fixture(scope="module")
def ai_sdk(run_node) -> dict[str, Any]:
    return run_node("ai_sdk.mjs")


@pytest.fixture(scope="module")
def ag_ui(run_node) -> dict[str, Any]:
    return run_node("ag_ui.mjs")


@pytest.fixture(scope="module")
def openai(run_node) -> dict[str, Any]:
    return run_node("openai.mjs")


@pytest.fixture(scope="module")
def event_source(run_node) -> dict[str, Any]:
    return run_node("event_source.mjs")


def chat(text: str, status: str = "ready", error: str | None = None) -> dict[str, Any]:
    return {"status": status, "roles": ["user", "assistant"], "text": text} | ({"error": error} if error else {})


# The AI SDK: Chat of @ai-sdk/react, DefaultChatTransport and readUIMessageStream of ai


def test_the_ai_sdk_shows_two_replies(ai_sdk):
    reply = ai_sdk["answer"]

    assert (reply["first"], reply["text"]) == ("Hello, streaming world", "and again")
    assert reply["roles"] == ["user", "assistant"] * 2
    assert reply["seen"][0] == "data-status"
    assert reply["seen"][-2:] == ["data-response", {"isAbort": False, "isDisconnect": False, "isError": False}]
    assert ai_sdk["reader"] == "read me"


def test_the_ai_sdk_keeps_unicode_text(ai_sdk):
    assert ai_sdk["unicode"] == UNICODE


def test_the_ai_sdk_shows_our_error_message(ai_sdk):
    error = ai_sdk["error"]

    assert {name: error[name] for name in chat("")} | {"error": error["error"]} == chat("This goes ", "error", ERROR_MESSAGE)
    assert "data-error" in error["seen"]


def test_the_ai_sdk_gets_a_rejected_request_as_json(ai_sdk):
    assert ai_sdk["refusal"]["status"] == "error"
    assert ai_sdk["refusal"]["error"]["code"] == "invalid_request"


def test_the_ai_sdk_shows_a_tool_call_of_the_engine(ai_sdk):
    text = "For God so loved the world."
    assert ai_sdk["tool"] == {
        "state": "output-available",
        "toolName": "fetch_scripture",
        "input": {"reference": "John 3:16"},
        "output": {"text": text},
        "text": text,
    }


def test_the_ai_sdk_waits_through_a_silence(ai_sdk):
    assert ai_sdk["silence"] == chat("Silent for 1 s.")


def test_the_ai_sdk_sees_a_stopped_reply(ai_sdk):
    assert ai_sdk["stop"] == {"stop": 202, "gone": True, **chat("one ")}


def test_the_ai_sdk_resumes_a_broken_stream_without_duplicates(ai_sdk):
    assert ai_sdk["resume"]["broken"]["isError"]
    assert ai_sdk["resume"].items() >= chat(FIVE).items()


def test_the_ai_sdk_resumes_a_running_reply_after_a_reload(ai_sdk):
    assert ai_sdk["reload"] == {"before": "one two three", "after": chat("one two three"), "later": None}


def test_the_ai_sdk_shows_reasoning_and_gets_the_finish_reason(ai_sdk):
    parts = [["reasoning", "The user wants a verse.", "done"], ["text", "In the beginning", "done"]]
    assert ai_sdk["truncated"] == {"status": "ready", "parts": parts, "reasons": ["length"]}


def test_the_ai_sdk_gets_a_sentence_for_a_file(ai_sdk):
    assert "files and images are not supported" in ai_sdk["file"]


def test_the_ai_sdk_may_send_parts_that_are_meant_for_the_app(ai_sdk):
    assert ai_sdk["appParts"] == chat("hi")


def test_two_chats_of_one_user_in_two_tabs_resume_their_own_replies(run_node):
    tabs = run_node("tabs.mjs")["tabs"]

    assert tabs["replies"] == ["one two three four", "five six seven eight"]
    assert tabs["ids"] == [["user", "assistant"]] * 2
    assert tabs["first"] == [204, 200]
    assert tabs["statuses"] == [[200], [200], [204], [204]]


def test_the_ai_sdk_regenerates_replies_and_edits_messages(ai_sdk):
    assert ai_sdk["regenerate"] == {"another": True, **chat("once")}
    assert ai_sdk["edit"] == chat("edited")


# AG-UI: HttpAgent


def test_an_ag_ui_agent_runs_to_its_end(ag_ui):
    reply = ag_ui["answer"]

    assert reply["text"] == "Hello, streaming world"
    assert reply["messages"] == [["user", reply["text"]], ["assistant", reply["text"]]]
    text = ["TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"]
    assert reply["events"] == ["RUN_STARTED", "CUSTOM", *text, "CUSTOM", "RUN_FINISHED"]


def test_an_ag_ui_agent_keeps_unicode_text(ag_ui):
    assert ag_ui["unicode"] == UNICODE


def test_an_ag_ui_agent_gets_errors(ag_ui):
    assert ag_ui["error"] == {"text": "This goes ", "error": [ERROR_MESSAGE, "upstream_error"]}
    assert ag_ui["refusal"] == 400


def test_an_ag_ui_agent_keeps_a_tool_call_with_its_result(ag_ui):
    text = "For God so loved the world."
    arguments = {"reference": "John 3:16"}
    assert ag_ui["tool"] == {"text": text, "name": "fetch_scripture", "input": arguments, "output": {"text": text}}


def test_an_ag_ui_agent_waits_through_a_silence(ag_ui):
    assert ag_ui["silence"] == "Silent for 1 s."


def test_a_stop_cancels_an_ag_ui_run(ag_ui):
    assert ag_ui["stop"] == {"text": "one ", "outcome": "cancelled", "stop": 202, "gone": True}


def test_repeating_a_broken_ag_ui_run_resumes_it(ag_ui):
    assert ag_ui["resume"] == {"broken": True, "text": FIVE, "same": True}


def test_an_ag_ui_agent_shows_reasoning_and_gets_the_finish_reason(ag_ui):
    truncated = ag_ui["truncated"]

    reasoning = [
        "REASONING_START",
        "REASONING_MESSAGE_START",
        "REASONING_MESSAGE_CONTENT",
        "REASONING_MESSAGE_END",
        "REASONING_END",
    ]
    assert [kind for kind in truncated["events"] if kind.startswith("REASONING")] == reasoning
    assert truncated["metadata"] == {"finishReason": "length"}
    assert truncated["messages"][1:] == [["reasoning", "The user wants a verse."], ["assistant", "In the beginning"]]
    assert truncated["again"] == "In the beginning", "the history has a message of the role reasoning"


# OpenAI's own client


def test_openai_gets_the_finish_reason_and_the_usage(openai):
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}

    assert openai["truncated"]["whole"] == ["length", "In the beginning", usage]
    assert openai["truncated"]["streamed"] == [["length", None], [None, usage]]


def test_openai_raises_its_own_errors_for_what_is_not_there(openai):
    unknown = openai["unknown"]

    assert (unknown["route"]["status"], unknown["route"]["named"]) == (404, "NotFoundError")
    assert (unknown["method"]["status"], unknown["method"]["code"]) == (405, "method_not_allowed")
    assert (unknown["many"]["status"], unknown["many"]["param"]) == (400, "n")
    assert all(error["requestID"] for error in unknown.values())


def test_openais_stream_helper_sums_up_a_reply(openai):
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert openai["helper"] == {"text": "hello", "usage": usage}


def test_openai_reads_streamed_and_whole_replies(openai):
    assert openai["answer"] == {"text": "Hello, streaming world", "finish": "stop"}
    message = {"role": "assistant", "content": "Hello, whole world", "refusal": None}
    assert openai["whole"] == {"object": "chat.completion", "model": "default", "message": message, "finish": "stop"}


def test_openai_keeps_unicode_text(openai):
    assert openai["unicode"] == {"whole": UNICODE, "streamed": UNICODE}


def test_openai_raises_its_own_errors(openai):
    error = openai["error"]

    assert (error["text"], error["thrown"], error["code"]) == ("This goes ", "APIError", "upstream_error")
    assert (error["whole"]["status"], error["whole"]["code"]) == (502, "upstream_error")


@pytest.mark.parametrize(
    ("case", "status", "named"),
    [("blank", 400, "BadRequestError"), ("model", 404, "NotFoundError"), ("stranger", 403, "PermissionDeniedError")],
)
def test_openai_maps_statuses_to_error_classes(openai, case, status, named):
    refused = openai["refusal"][case]

    assert (refused["status"], refused["named"], refused["requestID"]) == (status, named, True)


def test_openai_lists_the_models(openai):
    assert openai["models"] == {"ids": ["default", "echo", "demo"], "one": "default"}


def test_openai_waits_through_a_silence(openai):
    assert openai["silence"] == "Silent for 1 s."


def test_openai_stops_a_reply_by_disconnecting(openai):
    assert openai["stop"] == {"text": "one ", "gone": True}


def test_openai_gets_the_same_reply_for_the_same_key(openai):
    assert openai["resume"] == {"broken": True, "text": FIVE, "finish": "stop", "same": True}


# EventSource and @microsoft/fetch-event-source


@pytest.mark.parametrize("case", ["answer", "fetchAnswer"])
def test_an_event_source_reads_a_reply(event_source, case):
    result = event_source[case]

    assert (result["text"], result["opened"]) == ("Hello, streaming world", 1)
    assert (result["types"][0], result["types"][-1]) == ("status", "complete")


@pytest.mark.parametrize("case", ["unicode", "fetchUnicode"])
def test_an_event_source_keeps_unicode_text(event_source, case):
    assert event_source[case] == UNICODE


@pytest.mark.parametrize("case", ["error", "fetchError"])
def test_an_event_source_gets_an_error(event_source, case):
    assert (event_source[case]["text"], event_source[case]["code"]) == ("This goes ", "upstream_error")


@pytest.mark.parametrize("case", ["silence", "fetchSilence"])
def test_an_event_source_gets_heartbeats_in_a_silence(event_source, case):
    assert "keepalive" in event_source[case]["types"]
    assert event_source[case]["text"] == "Silent for 1 s."


@pytest.mark.parametrize("case", ["resume", "fetchResume"])
def test_an_event_source_resumes_a_broken_stream(event_source, case):
    result = event_source[case]

    assert (result["text"], result["opened"], result["types"][-1]) == (FIVE, 2, "complete")


def test_an_event_source_sees_a_stopped_reply(event_source):
    assert (event_source["stop"]["text"], event_source["stop"]["types"][-1]) == ("one ", "stopped")
