"""The agent `openai`, with a server on a socket: OpenAI's format, and the variants of compatible servers."""

import json
from time import monotonic

import pytest

from bff import create_app
from bff.auth.identity import Identity
from bff.config.environment import load_settings
from bff.config.settings import Settings
from bff.engine.agents import registry
from bff.engine.agents.openai import completion as completion_module
from bff.engine.agents.openai.agent import RETRIES
from bff.engine.app import create_engine
from bff.errors import AnswerIncomplete, TooManyRequests, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from bff.upstream.messages import ChatMessage
from tests.engine.agents.openai_server import (
    BEGIN,
    DONE,
    HEAD,
    completion,
    data,
    error_reply,
    full_reply,
    piece,
    settings_of,
    text_deltas,
)
from tests.live import BASE_ENVIRONMENT, free_port
from tests.wire_server import CUT, HANG, LAST_CHUNK, WireServer, chunk, reply, stream_head

ANN = Identity("ann", "org")
HISTORY = [ChatMessage("user", "Hi"), ChatMessage("assistant", "Hello."), ChatMessage("user", "Ἐν ἀρχῇ?")]


def settings(server, **environment: str) -> Settings:
    return load_settings({**BASE_ENVIRONMENT, **settings_of(server), **environment})


def reply_text(server, waiter, **environment: str) -> str:
    agent = registry.create_agents(settings(server, **environment))["openai"]
    assert agent.id == "openai"
    return "".join(piece for piece in agent.stream(HISTORY, ANN, waiter) if isinstance(piece, str))


def test_informational_responses_are_skipped(waiter):
    with WireServer([b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n" * 2, *full_reply("In ", "the ", "beginning")]) as server:
        assert reply_text(server, waiter) == "In the beginning"


def test_the_request_has_openais_format(waiter):
    with WireServer(full_reply("In ", "the ", "beginning")) as server:
        assert reply_text(server, waiter) == "In the beginning"

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


def test_without_a_key_there_is_no_authorization_header(waiter):
    with WireServer(full_reply("local")) as server:
        assert reply_text(server, waiter, OPENAI_API_KEY="") == "local"

    assert "authorization" not in server.requests[0].headers


CALL = piece({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}]})
SECOND_CHOICE = data(completion([{"index": 1, "delta": {"content": "another reply"}, "finish_reason": None}]))
SPLIT_EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"ok"},"finish_reason":"stop"}]}\n\n'
REPLIES = {
    "an event in two chunks": [HEAD, chunk(SPLIT_EVENT[:40]), 0.05, chunk(SPLIT_EVENT[40:]), DONE, LAST_CHUNK],
    "no [DONE]": [HEAD, *text_deltas("ok"), piece({}, "stop"), LAST_CHUNK],
    "no finish_reason": [HEAD, *text_deltas("ok"), DONE, LAST_CHUNK],
    "text after [DONE]": [HEAD, *text_deltas("ok"), DONE, *text_deltas("more"), HANG],
    "finish_reason length": [HEAD, *text_deltas("ok"), piece({}, "length"), DONE, LAST_CHUNK],
    "a second choice": [HEAD, *text_deltas("o"), SECOND_CHOICE, *text_deltas("k"), piece({}, "stop"), DONE],
    "reasoning": [HEAD, piece({"reasoning_content": "hm", "content": None}), *text_deltas("ok"), piece({}, "stop"), DONE],
    "a refusal": [HEAD, piece({"refusal": "ok", "content": None}), piece({}, "stop"), DONE],
    "no delta": [HEAD, *text_deltas("ok"), data({"choices": [{"finish_reason": "stop"}]}), DONE],
    "comments": [HEAD, chunk(b": OPENROUTER PROCESSING\n\n"), *text_deltas("ok"), chunk(b": ping\n\n"), DONE],
    "CRLF": [HEAD, chunk(b'data: {"choices":[{"delta":{"content":"ok"}}]}\r\n\r\n'), DONE],
    "no chunked encoding": [stream_head(chunked=False), b'data: {"choices":[{"delta":{"content":"ok"}}]}\n\ndata: [DONE]\n\n'],
    "null content at the end": [HEAD, *text_deltas("ok"), piece({"content": None}, "stop"), DONE],
}


@pytest.mark.parametrize("response", REPLIES.values(), ids=REPLIES.keys())
def test_variants_of_compatible_servers_are_accepted(response, waiter):
    with WireServer(response) as server:
        assert reply_text(server, waiter) == "ok"


ERROR = {"error": {"message": "The server had an error. Somebody's words.", "type": "server_error", "code": None}}
FAILURES = {
    "an error in the middle": ([HEAD, *text_deltas("so far"), data(ERROR), DONE], UpstreamError),
    "an error event": ([HEAD, chunk(b"event: error\ndata: oops\n\n")], UpstreamError),
    "an early end": ([HEAD, *text_deltas("so far"), LAST_CHUNK], AnswerIncomplete),
    "nonsense": ([HEAD, *text_deltas("so far"), data("{"), DONE], UpstreamError),
    "unrequested tool calls": ([HEAD, BEGIN, *text_deltas("ok"), CALL, piece({}, "tool_calls"), DONE], UpstreamError),
    "a cut connection": ([HEAD, *text_deltas("so far"), CUT], UpstreamUnavailable),
    "silence": ([HEAD, *text_deltas("so far"), HANG], UpstreamTimeout),
    "silence from the start": ([HANG], UpstreamTimeout),
    "a content filter": ([HEAD, *text_deltas("so far"), piece({}, "content_filter"), DONE], UpstreamError),
    "a wrong key": ([error_reply("401 Unauthorized")], UpstreamError),
    "a wrong model": ([error_reply("404 Not Found")], UpstreamError),
    "a server error": ([error_reply("500 Internal Server Error")], UpstreamError),
    "a gateway error": ([error_reply("503 Service Unavailable")], UpstreamUnavailable),
    "JSON without a reply": ([reply(b"{}")], AnswerIncomplete),
    "HTML": ([reply(b"<html></html>", content_type="text/html")], UpstreamError),
    "no content": ([reply(status="204 No Content")], AnswerIncomplete),
    "a redirect": ([reply(status="302 Found", Location="http://elsewhere.example/")], UpstreamError),
}


@pytest.mark.parametrize(("response", "problem"), FAILURES.values(), ids=FAILURES.keys())
def test_failures_are_mapped_without_quoting_the_server(response, problem, waiter):
    with WireServer(response) as server, pytest.raises(problem) as raised:
        reply_text(server, waiter, MODEL_READ_SECONDS="0.5")

    assert type(raised.value) is problem
    assert "Somebody" not in str(raised.value) + raised.value.detail
    assert "sk-test" not in str(raised.value) + raised.value.detail


def test_comments_of_the_server_are_signs_of_life(waiter):
    comments = [step for _ in range(8) for step in (chunk(b": keep-alive\n\n"), 0.1)]
    with WireServer([HEAD, *comments, *text_deltas("ok"), *comments, piece({}, "stop"), DONE, LAST_CHUNK]) as server:
        assert reply_text(server, waiter, MODEL_READ_SECONDS="0.4") == "ok"


def test_the_models_silence_has_a_setting_of_its_own(waiter):
    with WireServer([0.5, HEAD, 0.5, *text_deltas("ok"), 0.5, piece({}, "stop"), DONE, LAST_CHUNK]) as server:
        assert reply_text(server, waiter, UPSTREAM_READ_SECONDS="0.1") == "ok"


PINGS = [step for _ in range(40) for step in (chunk(b": ping\n\n"), 0.1)]


@pytest.mark.parametrize("rest", [[], PINGS], ids=["silent", "pings"])
def test_a_finished_reply_does_not_wait_for_a_connection_that_is_held_open(rest, waiter, monkeypatch):
    monkeypatch.setattr(completion_module, "FINISH_SECONDS", 0.3)
    begun = monotonic()
    with WireServer([HEAD, *text_deltas("ok"), piece({}, "stop"), *rest, HANG]) as server:
        assert reply_text(server, waiter) == "ok"

    assert 0.3 <= monotonic() - begun < 2


def test_a_refused_connection_is_unavailable(waiter):
    closed = f"http://127.0.0.1:{free_port()}/v1"

    with WireServer([HANG]) as server, pytest.raises(UpstreamUnavailable):
        reply_text(server, waiter, OPENAI_BASE_URL=closed)


def test_a_429_is_retried_after_its_retry_after(waiter):
    with WireServer([error_reply("429 Too Many Requests", Retry_After="1")], full_reply("ok")) as server:
        assert reply_text(server, waiter) == "ok"

    assert len(server.requests) == 2


@pytest.mark.parametrize(("seconds", "requests"), [("1", 1 + RETRIES), ("3600", 1)])
def test_a_server_that_stays_busy_is_given_up(seconds, requests, waiter):
    with (
        WireServer([error_reply("429 Too Many Requests", Retry_After=seconds)]) as server,
        pytest.raises(TooManyRequests) as raised,
    ):
        reply_text(server, waiter)

    assert len(server.requests) == requests
    assert raised.value.retry_after == int(seconds)
    assert "busy" in str(raised.value)


def test_the_bundled_engine_streams_its_reply():
    with WireServer(full_reply("In ", "the ", "beginning")) as server:
        client = create_engine(settings(server), "k" * 32).test_client()
        request = {"client_id": "web", "user_id": "ann", "org": "org", "message": "hello"}
        response = client.post("/api/v1/chat/stream", json=request, headers={"Authorization": "Bearer " + "k" * 32}).text

    assert '{"type":"progress","text":"In "}' in response
    assert '"responses":["In the beginning"]' in response


def test_the_bundled_engine_reports_its_failure():
    with WireServer([error_reply("500 Internal Server Error")]) as server:
        client = create_engine(settings(server), "k" * 32).test_client()
        request = {"client_id": "web", "user_id": "ann", "org": "org", "message": "hello"}
        headers = {"Authorization": "Bearer " + "k" * 32}
        streamed = client.post("/api/v1/chat/stream", json=request, headers=headers).text
        single = client.post("/api/v1/chat", json=request, headers=headers)

    assert json.loads(streamed.removeprefix("data: "))["type"] == "error"
    assert (single.status_code, single.get_json()["code"]) == (502, "upstream_error")


def test_the_key_is_hidden_from_reprs():
    with WireServer([HANG]) as server:
        loaded = settings(server)

    assert "sk-test" not in repr(loaded)
    assert "sk-test" not in repr(create_app(loaded).extensions)
