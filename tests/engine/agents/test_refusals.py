"""How the agent `openai` reads error responses, and what it sends again."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from bff.auth.identity import Identity
from bff.config.environment import load_settings
from bff.engine.agents import registry
from bff.engine.agents.openai.request import request_body, with_fewer_turns
from bff.errors import ContextTooLong, TooManyRequests, UpstreamError, UpstreamUnavailable
from bff.upstream.messages import ChatMessage
from tests.engine.agents.openai_server import DONE, HEAD, data, full_reply, piece, settings_of, text_deltas
from tests.live import BASE_ENVIRONMENT
from tests.wire_server import HANG, WireServer, reply

ANN = Identity("ann", "org")
QUESTION = [ChatMessage("user", "Hi")]
TURNS = [
    message
    for number in range(10)
    for message in (ChatMessage("user", f"question {number} " + "x" * 84), ChatMessage("assistant", "y" * 100))
]


def ask(server: WireServer, waiter: Any, history: Any = QUESTION, **options: Any) -> str:
    agent = registry.create_agents(load_settings(BASE_ENVIRONMENT | settings_of(server)))["openai"]
    return "".join(piece for piece in agent.stream(history, ANN, waiter, **options) if isinstance(piece, str))


def refusal(status: str, content: Any, **headers: str) -> list[bytes]:
    return [reply(json.dumps(content).encode(), status, **headers)]


def contents(server: WireServer) -> list[list[str]]:
    return [[message["content"] for message in json.loads(request.body)["messages"]] for request in server.requests]


BAD = "400 Bad Request"
TOO_LONG = {
    "OpenAI": (BAD, {"error": {"message": "no", "type": "invalid_request_error", "code": "context_length_exceeded"}}),
    "vLLM": (BAD, {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400}),
    "vLLM, nested": (BAD, {"error": {"message": "Input length (9000) exceeds model's maximum context length (4096)."}}),
    "llama.cpp": (BAD, {"error": {"code": 400, "message": "no", "type": "exceed_context_size_error", "n_ctx": 256}}),
    "llama.cpp, older": ("500 Internal Server Error", {"error": {"message": "the request exceeds the available context size"}}),
    "LM Studio": (BAD, {"error": "The number of tokens to keep is greater than the context length."}),
    "Ollama": ("500 Internal Server Error", {"error": {"message": "input length exceeds the context length"}}),
    "TGI": (
        "422 Unprocessable Entity",
        {"error": "Input validation error: `inputs` tokens + `max_new_tokens` ... input length"},
    ),
    "Mistral": (BAD, {"object": "error", "message": "Prompt contains 40000 tokens, too large for model with 32768 maximum"}),
    "Anthropic": (BAD, {"type": "error", "error": {"message": "prompt is too long: 215000 tokens > 200000 maximum"}}),
    "Gemini": (BAD, [{"error": {"message": "The input token count (1) exceeds the maximum number of tokens allowed."}}]),
    "OpenRouter": (BAD, {"error": {"code": 400, "message": "Provider returned error", "metadata": {"raw": "context_length"}}}),
    "xAI": (BAD, {"code": "invalid-argument", "error": "This model's maximum prompt length is 131072 but it contains 537812."}),
    "Groq": ("413 Payload Too Large", {"error": {"message": "Request too large", "code": "rate_limit_exceeded"}}),
    "nginx": ("413 Request Entity Too Large", None),
    "OpenAI, per minute": ("429 Too Many Requests", {"error": {"code": "context_length_exceeded"}}),
}


@pytest.mark.parametrize(("status", "content"), TOO_LONG.values(), ids=TOO_LONG)
def test_a_too_long_context_is_recognised(status, content, waiter):
    with WireServer(refusal(status, content)) as server, pytest.raises(ContextTooLong):
        ask(server, waiter)

    assert len(server.requests) == 1, "there are no older turns to leave out"


OTHERS = {
    "a wrong key": ("401 Unauthorized", {"error": {"message": "context length"}}),
    "an unknown parameter": (BAD, {"error": {"message": "Unrecognized request argument: seed", "code": None}}),
    "no JSON": (BAD, "x"),
    "deep nesting": (BAD, {"error": {"error": {"error": {"error": {"error": "context length"}}}}}),
    "a missing model": ("404 Not Found", {"detail": "Not Found"}),
    "a server error": ("500 Internal Server Error", {"detail": [{"msg": "broken"}]}),
}


@pytest.mark.parametrize(("status", "content"), OTHERS.values(), ids=OTHERS)
def test_other_refusals_are_upstream_errors(status, content, waiter):
    with WireServer(refusal(status, content)) as server, pytest.raises(UpstreamError) as raised:
        ask(server, waiter, [*TURNS, *QUESTION])

    assert len(server.requests) == 1
    assert status[:3] in raised.value.detail


@pytest.mark.parametrize(
    "status", ["502 Bad Gateway", "503 Service Unavailable", "504 Timeout", "524 Timeout", "529 Overloaded"]
)
def test_an_overloaded_server_is_unavailable(status, waiter):
    with WireServer(refusal(status, {})) as server, pytest.raises(UpstreamUnavailable):
        ask(server, waiter)


@pytest.mark.parametrize(
    ("content", "logged"),
    [
        (
            {"error": {"message": "Ann's words", "type": "invalid_request_error", "code": "x"}},
            "code x, type invalid_request_error",
        ),
        ({"error": {"message": "Ann's words", "code": 1113}}, "400, code 1113"),
        ({"error": {"message": "Ann's words", "code": "Ann's words", "type": ["Ann's words"]}}, "returned 400"),
    ],
)
def test_the_detail_has_code_and_type_and_no_text(content, logged, waiter):
    with WireServer(refusal(BAD, content)) as server, pytest.raises(UpstreamError) as raised:
        ask(server, waiter)

    assert raised.value.detail.endswith(logged)
    assert "Ann" not in raised.value.detail


@pytest.mark.parametrize(("name", "value"), [("code", "insufficient_quota"), ("type", "insufficient_quota")])
def test_a_used_up_quota_is_not_tried_again(name, value, waiter):
    with WireServer(refusal("429 Too Many Requests", {"error": {name: value}})) as server, pytest.raises(UpstreamError):
        ask(server, waiter)

    assert len(server.requests) == 1


def test_a_rate_limit_that_is_called_quota_is_tried_again(waiter):
    busy = refusal(
        "429 Too Many Requests", {"error": "INSUFFICIENT QUOTA", "message": "Concurrent requests"}, Retry_After="0.1"
    )
    with WireServer(busy, full_reply("ok")) as server:
        assert ask(server, waiter) == "ok"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "3600"}, 3600),
        ({"Retry_After": "12.2"}, 13),
        ({"retry_after_ms": "30500", "Retry_After": "99"}, 31),
        ({"Retry_After": "99999999"}, 3600),
    ],
)
def test_every_form_of_retry_after_is_read(headers, seconds, waiter):
    with WireServer(refusal("429 Too Many Requests", {}, **headers)) as server, pytest.raises(TooManyRequests) as raised:
        ask(server, waiter)

    assert raised.value.retry_after == seconds


def test_retry_after_may_be_a_date(waiter):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=1000), usegmt=True)

    with WireServer(refusal("429 Too Many Requests", {}, Retry_After=date)) as server, pytest.raises(TooManyRequests) as raised:
        ask(server, waiter)

    assert 900 < raised.value.retry_after <= 1000


def test_a_body_that_never_ends_is_not_awaited(waiter, monkeypatch):
    monkeypatch.setattr("bff.engine.agents.openai.refusals.BODY_SECONDS", 0.1)
    head = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 99\r\n\r\n{"

    with WireServer([head, HANG]) as server, pytest.raises(UpstreamError):
        ask(server, waiter)


# Asking again with fewer turns


REFUSED = refusal(BAD, {"error": {"code": "context_length_exceeded", "message": "maximum context length is 700 tokens"}})
REFUSED_IN_STREAM = [HEAD, data({"error": {"message": "Context size has been exceeded."}})]


@pytest.mark.parametrize("refused", [REFUSED, REFUSED_IN_STREAM], ids=["response", "stream"])
def test_a_too_long_history_is_sent_again_once_with_its_newest_turns(refused, waiter):
    history = [*TURNS, *QUESTION]
    with WireServer(refused, full_reply("ok")) as server:
        assert ask(server, waiter, history) == "ok"

    first, second = contents(server)
    assert first == [message.content for message in history]
    assert second == first[-len(second) :]
    assert 1 < len(second) < len(first)
    assert second[0].startswith("question"), "a history begins with a question"


def test_a_history_that_stays_too_long_is_an_error(waiter):
    with WireServer(REFUSED) as server, pytest.raises(ContextTooLong):
        ask(server, waiter, [*TURNS, *QUESTION])

    assert len(server.requests) == 2


def test_nothing_is_sent_again_after_output(waiter):
    with WireServer([HEAD, *text_deltas("so far"), *REFUSED_IN_STREAM[1:]]) as server, pytest.raises(ContextTooLong):
        ask(server, waiter, [*TURNS, *QUESTION])

    assert len(server.requests) == 1


def test_the_question_is_kept_however_long_it_is():
    question = ChatMessage("user", "z" * 10_000)

    assert with_fewer_turns([*TURNS, question], None) == [question]
    assert with_fewer_turns([question], None) is None
    assert with_fewer_turns([], None) is None


def test_the_models_limit_decides_how_many_turns_are_kept():
    kept = [len(with_fewer_turns([*TURNS, *QUESTION], tokens)) for tokens in (None, 10_000, 450, 250, 1)]

    assert kept == [5, 5, 5, 3, 1]


def test_the_body_has_the_options_but_they_replace_nothing():
    body = request_body("m", QUESTION, {"temperature": 0.5, "stream": False, "model": "other", "stop": ["x"]})

    messages = [{"role": "user", "content": "Hi"}]
    assert body == {"temperature": 0.5, "stop": ["x"], "model": "m", "messages": messages, "stream": True}


def test_tool_calls_are_accepted_if_tools_were_offered(waiter):
    with WireServer([HEAD, *text_deltas("ok"), piece({}, "tool_calls"), DONE]) as server:
        assert ask(server, waiter, options={"tools": [{"type": "function"}]}) == "ok"
