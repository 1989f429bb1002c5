"""Against a server that speaks OpenAI's format on a socket, and the dialects of those compatible with it."""

import json

import pytest

from bff import create_app
from bff.auth.identity import Identity
from bff.config.environment import load_settings
from bff.config.settings import Settings
from bff.engine.agents import registry
from bff.engine.agents.openai import RETRIES
from bff.engine.app import create_engine
from bff.errors import AnswerIncomplete, TooManyRequests, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from bff.upstream.messages import ChatMessage
from tests.engine.agents.openai_server import BEGIN, DONE, HEAD, completion, data, piece, refusal, settings_of, whole, words
from tests.live import BASE_ENVIRONMENT, free_port
from tests.wire_server import CUT, HANG, LAST_CHUNK, WireServer, chunk, reply, stream_head

ANN = Identity("ann", "org")
HISTORY = [ChatMessage("user", "Hi"), ChatMessage("assistant", "Hello."), ChatMessage("user", "Ἐν ἀρχῇ?")]


def settings(server, **more: str) -> Settings:
    return load_settings({**BASE_ENVIRONMENT, **settings_of(server), **more})


def said(server, waiter, **more: str) -> str:
    agent = registry.create_agents(settings(server, **more))["openai"]
    assert agent.id == "openai"
    return "".join(piece or "" for piece in agent.stream(HISTORY, ANN, waiter))


def test_informational_answers_before_its_own_are_skipped(waiter):
    with WireServer([b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n" * 2, *whole("In ", "the ", "beginning")]) as server:
        assert said(server, waiter) == "In the beginning"


def test_it_asks_as_openai_is_asked(waiter):
    with WireServer(whole("In ", "the ", "beginning")) as server:
        assert said(server, waiter) == "In the beginning"

    [request] = server.requests
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == "Bearer sk-test"
    assert json.loads(request.body) == {
        "model": "small",
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "Ἐν ἀρχῇ?"},
        ],
        "stream": True,
    }


def test_without_a_key_none_is_shown(waiter):
    with WireServer(whole("local")) as server:
        assert said(server, waiter, OPENAI_API_KEY="") == "local"

    assert "authorization" not in server.requests[0].headers


TOOL = piece({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}]})
OTHER = data(completion([{"index": 1, "delta": {"content": "another reply"}, "finish_reason": None}]))
HALVES = b'data: {"choices":[{"index":0,"delta":{"content":"ok"},"finish_reason":"stop"}]}\n\n'
REPLIES = {
    "cut anywhere": [HEAD, chunk(HALVES[:40]), 0.05, chunk(HALVES[40:]), DONE, LAST_CHUNK],
    "no [DONE]": [HEAD, *words("ok"), piece({}, "stop"), LAST_CHUNK],
    "no finish_reason": [HEAD, *words("ok"), DONE, LAST_CHUNK],
    "nothing after [DONE] counts": [HEAD, *words("ok"), DONE, *words("more"), HANG],
    "cut short for its length": [HEAD, *words("ok"), piece({}, "length"), DONE, LAST_CHUNK],
    "tool calls": [HEAD, BEGIN, *words("ok"), TOOL, piece({"function_call": {"name": "f"}}), piece({}, "tool_calls"), DONE],
    "a second reply": [HEAD, *words("o"), OTHER, *words("k"), piece({}, "stop"), DONE],
    "reasoning": [HEAD, piece({"reasoning_content": "hm", "content": None}), *words("ok"), piece({}, "stop"), DONE],
    "a refusal": [HEAD, piece({"refusal": "ok", "content": None}), piece({}, "stop"), DONE],
    "no delta": [HEAD, *words("ok"), data({"choices": [{"finish_reason": "stop"}]}), DONE],
    "nonsense": [HEAD, data("{"), data("[1]"), data({"choices": "no"}), data({"choices": [3]}), *words("ok"), DONE],
    "comments": [HEAD, chunk(b": OPENROUTER PROCESSING\n\n"), *words("ok"), chunk(b": ping\n\n"), DONE],
    "line ends of a carriage return": [HEAD, chunk(b'data: {"choices":[{"delta":{"content":"ok"}}]}\r\n\r\n'), DONE],
    "no chunks": [stream_head(chunked=False), b'data: {"choices":[{"delta":{"content":"ok"}}]}\n\ndata: [DONE]\n\n'],
    "its content's end": [HEAD, *words("ok"), piece({"content": None}, "stop"), DONE],
}


@pytest.mark.parametrize("answer", REPLIES.values(), ids=REPLIES.keys())
def test_what_a_server_leaves_out_or_adds_is_no_matter(answer, waiter):
    with WireServer(answer) as server:
        assert said(server, waiter) == "ok"


ERROR = {"error": {"message": "The server had an error. Somebody's words.", "type": "server_error", "code": None}}
FAILURES = {
    "an error in the middle": ([HEAD, *words("so far"), data(ERROR), DONE], UpstreamError),
    "an error event": ([HEAD, chunk(b"event: error\ndata: oops\n\n")], UpstreamError),
    "an end in the middle": ([HEAD, *words("so far"), LAST_CHUNK], AnswerIncomplete),
    "a cut": ([HEAD, *words("so far"), CUT], UpstreamUnavailable),
    "silence": ([HEAD, *words("so far"), HANG], UpstreamTimeout),
    "silence from the start": ([HANG], UpstreamTimeout),
    "what may not be said": ([HEAD, *words("so far"), piece({}, "content_filter"), DONE], UpstreamError),
    "a wrong key": ([refusal("401 Unauthorized")], UpstreamError),
    "a wrong model": ([refusal("404 Not Found")], UpstreamError),
    "a fault": ([refusal("500 Internal Server Error")], UpstreamError),
    "a gateway's fault": ([refusal("503 Service Unavailable")], UpstreamUnavailable),
    "no stream": ([reply(b"{}")], UpstreamError),
    "another address": ([reply(status="302 Found", Location="http://elsewhere.example/")], UpstreamError),
}


@pytest.mark.parametrize(("answer", "problem"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failure_is_one_of_ours_and_says_nothing_of_theirs(answer, problem, waiter):
    with WireServer(answer) as server, pytest.raises(problem) as raised:
        said(server, waiter, UPSTREAM_READ_SECONDS="0.5")

    assert type(raised.value) is problem
    assert "Somebody" not in str(raised.value) + raised.value.detail
    assert "sk-test" not in str(raised.value) + raised.value.detail


def test_nobody_there_is_unavailable(waiter):
    nowhere = f"http://127.0.0.1:{free_port()}/v1"

    with WireServer([HANG]) as server, pytest.raises(UpstreamUnavailable):
        said(server, waiter, OPENAI_BASE_URL=nowhere)


def test_a_busy_server_is_asked_again_when_it_says(waiter):
    with WireServer([refusal("429 Too Many Requests", Retry_After="1")], whole("ok")) as server:
        assert said(server, waiter) == "ok"

    assert len(server.requests) == 2


@pytest.mark.parametrize(("seconds", "asked"), [("1", 1 + RETRIES), ("3600", 1)])
def test_a_server_that_stays_busy_is_given_up(seconds, asked, waiter):
    with (
        WireServer([refusal("429 Too Many Requests", Retry_After=seconds)]) as server,
        pytest.raises(TooManyRequests) as raised,
    ):
        said(server, waiter)

    assert len(server.requests) == asked
    assert raised.value.retry_after == int(seconds)
    assert "busy" in str(raised.value)


def test_the_bundled_engine_answers_with_it():
    with WireServer(whole("In ", "the ", "beginning")) as server:
        client = create_engine(settings(server), "k" * 32).test_client()
        asked = {"client_id": "web", "user_id": "ann", "org": "org", "message": "hello"}
        answer = client.post("/api/v1/chat/stream", json=asked, headers={"Authorization": "Bearer " + "k" * 32}).text

    assert '{"type":"progress","text":"In "}' in answer
    assert '"responses":["In the beginning"]' in answer


def test_the_bundled_engine_says_so_when_it_fails():
    with WireServer([refusal("500 Internal Server Error")]) as server:
        client = create_engine(settings(server), "k" * 32).test_client()
        asked = {"client_id": "web", "user_id": "ann", "org": "org", "message": "hello"}
        keyed = {"Authorization": "Bearer " + "k" * 32}
        streamed = client.post("/api/v1/chat/stream", json=asked, headers=keyed).text
        whole = client.post("/api/v1/chat", json=asked, headers=keyed)

    assert json.loads(streamed.removeprefix("data: "))["type"] == "error"
    assert (whole.status_code, whole.get_json()["code"]) == (502, "upstream_error")


def test_no_key_is_shown_to_whoever_prints_the_parts():
    with WireServer([HANG]) as server:
        read = settings(server)

    assert "sk-test" not in repr(read)
    assert "sk-test" not in repr(create_app(read).extensions)
