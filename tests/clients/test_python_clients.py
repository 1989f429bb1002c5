"""OpenAI's client for Python and httpx-sse, against a live server."""

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


def streamed(of: openai.OpenAI, content: str) -> Iterator[str]:
    stream = of.chat.completions.create(model="default", messages=[{"role": "user", "content": content}], stream=True)
    with stream:
        for chunk in stream:
            yield chunk.choices[0].delta.content or ""


def whole(of: openai.OpenAI, content: str) -> str | None:
    answer = of.chat.completions.create(model="default", messages=[{"role": "user", "content": content}])
    return answer.choices[0].message.content


@pytest.mark.parametrize(
    ("message", "answer"),
    [("Hello, streaming world", "Hello, streaming world"), ("/unicode", UNICODE), ("/silence 1", "That were 1 seconds.")],
    ids=["an answer", "unicode", "silence"],
)
def test_openais_client_reads_answers_streamed_and_whole(server, message, answer):
    with client(server.url, "py-reader") as of:
        assert "".join(streamed(of, message)) == answer
        assert whole(of, message) == answer


def test_openais_client_raises_what_went_wrong(server):
    with client(server.url, "py-errors") as of:
        with pytest.raises(openai.APIError) as in_stream:
            list(streamed(of, "/error"))
        with pytest.raises(openai.InternalServerError) as at_once:
            whole(of, "/error")
        with pytest.raises(openai.NotFoundError):
            of.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "hi"}])

    assert in_stream.value.code == at_once.value.code == "upstream_error"


def test_openais_client_stops_an_answer_by_leaving_streamed_or_whole(server):
    with client(server.url, "py-leaves") as of:
        stream = streamed(of, "/slow 600 one two")
        assert next(piece for piece in stream if piece) == "one "
        stream.close()
    with client(server.url, "py-waits") as of, pytest.raises(openai.APITimeoutError):
        whole(of.with_options(timeout=0.5), "/slow 600 one two")

    for user in ("py-leaves", "py-waits"):
        assert eventually(lambda: Browser(server, user).active() == [], 25)  # noqa: B023 - called at once


def test_openais_client_gets_the_same_answer_for_the_same_key(server, line):
    with client(line.url, "py-again", **CUT, **{"Idempotency-Key": "py-key"}) as of:
        with pytest.raises((openai.APIError, httpx.TransportError)):
            list(streamed(of, f"/slow 1 {FIVE}"))

        assert "".join(streamed(of, f"/slow 1 {FIVE}")) == FIVE
    assert eventually(lambda: Browser(server, "py-again").active() == [])


# httpx-sse


def text_of(events: list[ServerSentEvent]) -> str:
    contents = [json.loads(event.data) for event in events]
    return "".join(content["text"] for content in contents if content["type"] == "progress")


@pytest.mark.parametrize(
    ("message", "answer", "end"),
    [
        ("Hello, streaming world", "Hello, streaming world", "complete"),
        ("/unicode", UNICODE, "complete"),
        ("/silence 1", "That were 1 seconds.", "complete"),
        ("/error", "This goes ", "error"),
    ],
    ids=["an answer", "unicode", "silence", "error"],
)
def test_httpx_sse_reads_answers(server, message, answer, end):
    url, said = f"{server.url}/api/chat/stream", {"message": message}

    with httpx.Client() as http, connect_sse(http, "POST", url, json=said, headers=headers("httpx")) as source:
        events = list(source.iter_sse())

    assert text_of(events) == answer
    assert json.loads(events[-1].data)["type"] == end


def test_httpx_sse_goes_on_where_its_line_broke(line):
    url, said, events = f"{line.url}/api/chat/stream", {"message": f"/slow 1 {FIVE}"}, []

    with httpx.Client(headers=headers("httpx-again", **CUT)) as http:
        with pytest.raises(httpx.TransportError), connect_sse(http, "POST", url, json=said) as source:
            for event in source.iter_sse():
                events.append(event)
        location = source.response.headers["Location"]
        last = {"Last-Event-ID": events[-1].id}
        with connect_sse(http, "GET", f"{line.url}{location}", headers=last) as source:
            events += source.iter_sse()

    assert text_of(events) == FIVE


def test_httpx_sse_sees_an_answer_stopped(server):
    url = f"{server.url}/api/chat/stream"

    http = httpx.Client(headers=headers("httpx-stop"))
    with http, connect_sse(http, "POST", url, json={"message": "/slow 600 one two"}) as source:
        events = source.iter_sse()
        assert any("one " in event.data for event in events)
        assert http.post(f"{url}/{source.response.headers['X-Message-ID']}/stop").status_code == 202
        rest = [json.loads(event.data)["type"] for event in events]

    assert rest[-1] == "stopped"
