"""OpenAI's Python client and httpx-sse against a live server."""

import json
from collections.abc import Iterator

import httpx
import openai
import pytest
from httpx_sse import ServerSentEvent, connect_sse

from bff.engine.agents.demo import UNICODE
from tests.live import Browser, eventually, who

pytestmark = [pytest.mark.live, pytest.mark.timeout(60)]

FIVE = "one two three four five"
CUT = {"X-Cut": "three"}


def headers(user: str, **more: str) -> dict[str, str]:
    return who(user) | more


# OpenAI


def client(url: str, user: str, **more: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="a-key", default_headers=headers(user, **more), max_retries=0)


def stream_text(openai_client: openai.OpenAI, content: str) -> Iterator[str]:
    stream = openai_client.chat.completions.create(
        model="default", messages=[{"role": "user", "content": content}], stream=True
    )
    with stream:
        for chunk in stream:
            yield chunk.choices[0].delta.content or ""


def complete(openai_client: openai.OpenAI, content: str) -> str | None:
    completion = openai_client.chat.completions.create(model="default", messages=[{"role": "user", "content": content}])
    return completion.choices[0].message.content


@pytest.mark.parametrize(
    ("message", "reply"),
    [("Hello, streaming world", "Hello, streaming world"), ("/unicode", UNICODE), ("/silence 1", "Silent for 1 s.")],
    ids=["a reply", "unicode", "silence"],
)
def test_openai_reads_streamed_and_whole_replies(server, message, reply):
    with client(server.url, "py-reader") as openai_client:
        assert "".join(stream_text(openai_client, message)) == reply
        assert complete(openai_client, message) == reply


def test_openai_raises_errors(server):
    with client(server.url, "py-errors") as openai_client:
        with pytest.raises(openai.APIError) as stream_error:
            list(stream_text(openai_client, "/error"))
        with pytest.raises(openai.InternalServerError) as status_error:
            complete(openai_client, "/error")
        with pytest.raises(openai.NotFoundError):
            openai_client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "hi"}])

    assert stream_error.value.code == status_error.value.code == "upstream_error"


def test_openai_gets_the_finish_reason_and_the_usage(truncating_server):
    messages = [{"role": "user", "content": "hello"}]
    with client(truncating_server.url, "py-truncated") as openai_client:
        whole = openai_client.chat.completions.create(model="default", messages=messages)
        options = {"include_usage": True}
        *_, finish, last = openai_client.chat.completions.create(
            model="default", messages=messages, stream=True, stream_options=options
        )

    assert (whole.choices[0].finish_reason, whole.choices[0].message.content) == ("length", "In the beginning")
    assert (finish.choices[0].finish_reason, last.choices) == ("length", [])
    for usage in (whole.usage, last.usage):
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (9, 4, 13)


def test_openai_raises_its_own_errors_for_what_is_not_there(server):
    with client(server.url, "py-unknown") as openai_client:
        with pytest.raises(openai.NotFoundError) as unknown:
            openai_client.embeddings.create(model="default", input="hello")
        with pytest.raises(openai.APIStatusError) as method:
            openai_client.models.delete("default")
        with pytest.raises(openai.BadRequestError) as many:
            openai_client.chat.completions.create(model="default", messages=[{"role": "user", "content": "hi"}], n=2)

    assert (unknown.value.code, unknown.value.type) == ("not_found", "not_found_error")
    assert (method.value.status_code, method.value.code) == (405, "method_not_allowed")
    assert many.value.param == "n"


def test_openai_stops_a_reply_by_disconnecting(server):
    with client(server.url, "py-leaves") as openai_client:
        stream = stream_text(openai_client, "/slow 600 one two")
        assert next(piece for piece in stream if piece) == "one "
        stream.close()
    with client(server.url, "py-waits") as openai_client, pytest.raises(openai.APITimeoutError):
        complete(openai_client.with_options(timeout=0.5), "/slow 600 one two")

    for user in ("py-leaves", "py-waits"):
        assert eventually(lambda: Browser(server, user).active() == [], 25)  # noqa: B023 - called at once


def test_openai_gets_the_same_reply_for_the_same_key(server, cutting_proxy):
    with client(cutting_proxy.url, "py-again", **CUT, **{"Idempotency-Key": "py-key"}) as openai_client:
        with pytest.raises((openai.APIError, httpx.TransportError)):
            list(stream_text(openai_client, f"/slow 1 {FIVE}"))

        assert "".join(stream_text(openai_client, f"/slow 1 {FIVE}")) == FIVE
    assert eventually(lambda: Browser(server, "py-again").active() == [])


# httpx-sse


def text_of(events: list[ServerSentEvent]) -> str:
    contents = [json.loads(event.data) for event in events]
    return "".join(content["text"] for content in contents if content["type"] == "progress")


@pytest.mark.parametrize(
    ("message", "reply", "end"),
    [
        ("Hello, streaming world", "Hello, streaming world", "complete"),
        ("/unicode", UNICODE, "complete"),
        ("/silence 1", "Silent for 1 s.", "complete"),
        ("/error", "This goes ", "error"),
    ],
    ids=["a reply", "unicode", "silence", "error"],
)
def test_httpx_sse_reads_replies(server, message, reply, end):
    url, body = f"{server.url}/api/chat/stream", {"message": message}

    with httpx.Client() as http, connect_sse(http, "POST", url, json=body, headers=headers("httpx")) as source:
        events = list(source.iter_sse())

    assert text_of(events) == reply
    assert json.loads(events[-1].data)["type"] == end


def test_httpx_sse_resumes_a_broken_stream(cutting_proxy):
    url, body, events = f"{cutting_proxy.url}/api/chat/stream", {"message": f"/slow 1 {FIVE}"}, []

    with httpx.Client(headers=headers("httpx-again", **CUT)) as http:
        with pytest.raises(httpx.TransportError), connect_sse(http, "POST", url, json=body) as source:
            for event in source.iter_sse():
                events.append(event)
        location = source.response.headers["Location"]
        resume = {"Last-Event-ID": events[-1].id}
        with connect_sse(http, "GET", f"{cutting_proxy.url}{location}", headers=resume) as source:
            events += source.iter_sse()

    assert text_of(events) == FIVE


def test_httpx_sse_sees_a_stopped_reply(server):
    url = f"{server.url}/api/chat/stream"

    http = httpx.Client(headers=headers("httpx-stop"))
    with http, connect_sse(http, "POST", url, json={"message": "/slow 600 one two"}) as source:
        events = source.iter_sse()
        assert any("one " in event.data for event in events)
        assert http.post(f"{url}/{source.response.headers['X-Message-ID']}/stop").status_code == 202
        rest = [json.loads(event.data)["type"] for event in events]

    assert rest[-1] == "stopped"
