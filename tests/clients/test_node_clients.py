"""The official clients of other protocols, in Node, against a live server: what each case of each script saw."""

from typing import Any

import pytest

from bff.engine.agents.demo import UNICODE

pytestmark = [pytest.mark.live, pytest.mark.timeout(90)]

SENTENCE = "The assistant could not answer. Please try again."
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


def test_the_ai_sdk_shows_one_answer_after_the_other(ai_sdk):
    answer = ai_sdk["answer"]

    assert (answer["first"], answer["text"]) == ("Hello, streaming world", "and again")
    assert answer["roles"] == ["user", "assistant"] * 2
    assert answer["seen"][0] == "data-status"
    assert answer["seen"][-2:] == ["data-response", {"isAbort": False, "isDisconnect": False, "isError": False}]
    assert ai_sdk["reader"] == "read me"


def test_the_ai_sdk_keeps_every_character(ai_sdk):
    assert ai_sdk["unicode"] == UNICODE


def test_the_ai_sdk_hears_of_an_error_in_our_words(ai_sdk):
    error = ai_sdk["error"]

    assert {name: error[name] for name in chat("")} | {"error": error["error"]} == chat("This goes ", "error", SENTENCE)
    assert "data-error" in error["seen"]


def test_the_ai_sdk_hears_of_a_refusal_as_plain_json(ai_sdk):
    assert ai_sdk["refusal"]["status"] == "error"
    assert ai_sdk["refusal"]["error"]["code"] == "invalid_request"


def test_the_ai_sdk_shows_a_tool_the_engine_has_run(ai_sdk):
    text = "For God so loved the world."
    assert ai_sdk["tool"] == {
        "state": "output-available",
        "toolName": "fetch_scripture",
        "input": {"reference": "John 3:16"},
        "output": {"text": text},
        "text": text,
    }


def test_the_ai_sdk_sits_out_a_long_silence(ai_sdk):
    assert ai_sdk["silence"] == chat("That were 1 seconds.")


def test_the_ai_sdk_sees_an_answer_stopped(ai_sdk):
    assert ai_sdk["stop"] == {"stop": 202, "gone": True, **chat("one ")}


def test_the_ai_sdk_resumes_a_broken_stream_and_says_nothing_twice(ai_sdk):
    assert ai_sdk["resume"]["broken"]["isError"]
    assert ai_sdk["resume"].items() >= chat(FIVE).items()


def test_the_ai_sdk_finds_what_goes_on_after_a_page_was_loaded_again(ai_sdk):
    assert ai_sdk["reload"] == {"before": "one two three", "after": chat("one two three"), "later": None}


def test_the_ai_sdk_gets_another_answer_for_what_is_said_anew(ai_sdk):
    assert ai_sdk["regenerate"] == {"another": True, **chat("once")}
    assert ai_sdk["edit"] == chat("edited")


# AG-UI: HttpAgent


def test_an_ag_ui_agent_runs_from_its_start_to_its_finish(ag_ui):
    answer = ag_ui["answer"]

    assert answer["text"] == "Hello, streaming world"
    assert answer["messages"] == [["user", answer["text"]], ["assistant", answer["text"]]]
    text = ["TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"]
    assert answer["events"] == ["RUN_STARTED", "CUSTOM", *text, "CUSTOM", "RUN_FINISHED"]


def test_an_ag_ui_agent_keeps_every_character(ag_ui):
    assert ag_ui["unicode"] == UNICODE


def test_an_ag_ui_agent_hears_of_errors(ag_ui):
    assert ag_ui["error"] == {"text": "This goes ", "error": [SENTENCE, "upstream_error"]}
    assert ag_ui["refusal"] == 400


def test_an_ag_ui_agent_keeps_a_tool_call_with_its_result(ag_ui):
    text = "For God so loved the world."
    arguments = {"reference": "John 3:16"}
    assert ag_ui["tool"] == {"text": text, "name": "fetch_scripture", "input": arguments, "output": {"text": text}}


def test_an_ag_ui_agent_sits_out_a_long_silence(ag_ui):
    assert ag_ui["silence"] == "That were 1 seconds."


def test_an_ag_ui_run_is_cancelled_by_a_stop(ag_ui):
    assert ag_ui["stop"] == {"text": "one ", "outcome": "cancelled", "stop": 202, "gone": True}


def test_an_ag_ui_run_that_broke_is_followed_by_running_it_again(ag_ui):
    assert ag_ui["resume"] == {"broken": True, "text": FIVE, "same": True}


# OpenAI's own client


def test_openais_client_reads_an_answer_streamed_or_whole(openai):
    assert openai["answer"] == {"text": "Hello, streaming world", "finish": "stop"}
    message = {"role": "assistant", "content": "Hello, whole world", "refusal": None}
    assert openai["whole"] == {"object": "chat.completion", "model": "default", "message": message, "finish": "stop"}


def test_openais_client_keeps_every_character(openai):
    assert openai["unicode"] == {"whole": UNICODE, "streamed": UNICODE}


def test_openais_client_raises_errors_of_its_own(openai):
    error = openai["error"]

    assert (error["text"], error["thrown"], error["code"]) == ("This goes ", "APIError", "upstream_error")
    assert (error["whole"]["status"], error["whole"]["code"]) == (502, "upstream_error")


@pytest.mark.parametrize(
    ("case", "status", "named"),
    [("blank", 400, "BadRequestError"), ("model", 404, "NotFoundError"), ("stranger", 403, "PermissionDeniedError")],
)
def test_openais_client_knows_a_refusal_by_its_status(openai, case, status, named):
    refused = openai["refusal"][case]

    assert (refused["status"], refused["named"], refused["requestID"]) == (status, named, True)


def test_openais_client_lists_the_models(openai):
    assert openai["models"] == {"ids": ["default", "echo", "demo"], "one": "default"}


def test_openais_client_sits_out_a_long_silence(openai):
    assert openai["silence"] == "That were 1 seconds."


def test_openais_client_stops_an_answer_by_leaving(openai):
    assert openai["stop"] == {"text": "one ", "gone": True}


def test_openais_client_asks_again_with_its_key_and_gets_the_same_answer(openai):
    assert openai["resume"] == {"broken": True, "text": FIVE, "finish": "stop", "same": True}


# EventSource, and the one that can POST


@pytest.mark.parametrize("case", ["answer", "fetchAnswer"])
def test_an_event_source_reads_an_answer(event_source, case):
    heard = event_source[case]

    assert (heard["text"], heard["opened"]) == ("Hello, streaming world", 1)
    assert (heard["types"][0], heard["types"][-1]) == ("status", "complete")


@pytest.mark.parametrize("case", ["unicode", "fetchUnicode"])
def test_an_event_source_keeps_every_character(event_source, case):
    assert event_source[case] == UNICODE


@pytest.mark.parametrize("case", ["error", "fetchError"])
def test_an_event_source_hears_of_an_error(event_source, case):
    assert (event_source[case]["text"], event_source[case]["code"]) == ("This goes ", "upstream_error")


@pytest.mark.parametrize("case", ["silence", "fetchSilence"])
def test_an_event_source_is_kept_awake_through_a_long_silence(event_source, case):
    assert "keepalive" in event_source[case]["types"]
    assert event_source[case]["text"] == "That were 1 seconds."


@pytest.mark.parametrize("case", ["resume", "fetchResume"])
def test_an_event_source_goes_on_where_its_line_broke(event_source, case):
    heard = event_source[case]

    assert (heard["text"], heard["opened"], heard["types"][-1]) == (FIVE, 2, "complete")


def test_an_event_source_sees_an_answer_stopped(event_source):
    assert (event_source["stop"]["text"], event_source["stop"]["types"][-1]) == ("one ", "stopped")
