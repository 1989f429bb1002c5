"""OpenAI's Python client and /v1/responses on a live server."""

import openai
import pytest

from tests.clients.test_python_clients import client
from tests.live import Browser, eventually

pytestmark = [pytest.mark.live, pytest.mark.timeout(60)]

FIVE = "one two three four five"
ENDED = {"completed", "incomplete", "failed", "cancelled"}


def test_openai_creates_streams_and_retrieves_a_response(server):
    with client(server.url, "py-response") as openai_client:
        whole = openai_client.responses.create(model="default", input="Hello, streaming world", metadata={"topic": "tests"})
        with openai_client.responses.stream(model="default", input="Hello again") as stream:
            deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
            final = stream.get_final_response()

        assert whole.output_text == "Hello, streaming world"
        assert ("".join(deltas), final.output_text) == ("Hello again", "Hello again")
        assert openai_client.responses.retrieve(whole.id) == whole


def test_openai_resumes_a_stream_after_each_event(server):
    with client(server.url, "py-starting-after") as openai_client:
        with openai_client.responses.create(model="default", input=FIVE, background=True, stream=True) as stream:
            received = [next(stream)]
        response_id = received[0].response.id
        while True:
            number = received[-1].sequence_number
            with openai_client.responses.retrieve(response_id, stream=True, starting_after=number) as stream:
                if (event := next(stream, None)) is None:
                    break
                received.append(event)

        assert received == [*openai_client.responses.retrieve(response_id, stream=True)]
    assert received[-1].response.output_text == FIVE


def test_openais_stream_helper_resumes_a_response(server):
    with client(server.url, "py-helper") as openai_client:
        with openai_client.responses.stream(model="default", input=FIVE, background=True) as stream:
            first = next(iter(stream))
        with openai_client.responses.stream(response_id=first.response.id, starting_after=3) as stream:
            numbers = [event.sequence_number for event in stream]
            text = stream.get_final_response().output_text

    assert (numbers[0], text) == (4, FIVE)


def test_openai_polls_and_cancels_in_the_background(server):
    with client(server.url, "py-background") as openai_client:
        polled = openai_client.responses.create(model="default", input="/slow 1 one two", background=True)
        cancelled = openai_client.responses.create(model="default", input="/slow 600 one two", background=True)
        assert {polled.status, cancelled.status} <= {"queued", "in_progress"}

        assert openai_client.responses.cancel(cancelled.id).status == "cancelled"
        assert openai_client.responses.retrieve(cancelled.id).status == "cancelled"
        done = eventually(lambda: (found := openai_client.responses.retrieve(polled.id)).status in ENDED and found, 20)
        assert (done.status, done.output_text) == ("completed", "one two")


def test_openai_continues_a_chain_lists_its_input_and_deletes_it(server):
    with client(server.url, "py-chain") as openai_client:
        first = openai_client.responses.create(model="echo", input=[{"role": "user", "content": "one"}])
        second = openai_client.responses.create(
            model="echo", input=[*first.output, {"role": "user", "content": "two"}], previous_response_id=first.id
        )
        items = [item.content[0].text for item in openai_client.responses.input_items.list(second.id, order="asc", limit=1)]
        openai_client.responses.delete(first.id)

        assert (items, second.previous_response_id) == (["one", "two"], first.id)
        with pytest.raises(openai.NotFoundError):
            openai_client.responses.retrieve(first.id)
        with pytest.raises(openai.BadRequestError) as deleted:
            openai_client.responses.create(model="echo", input="three", previous_response_id=first.id)
    assert (deleted.value.code, deleted.value.param) == ("previous_response_not_found", "previous_response_id")


def test_openai_raises_errors(server):
    with client(server.url, "py-response-errors") as openai_client:
        with pytest.raises(openai.InternalServerError) as failed:
            openai_client.responses.create(model="default", input="/error")
        *_, last = openai_client.responses.create(model="default", input="/error", stream=True)
        with pytest.raises(openai.BadRequestError) as refused:
            openai_client.responses.create(model="default", input="hi", include=["reasoning.encrypted_content"])

    assert (failed.value.code, refused.value.param) == ("upstream_error", "include")
    assert (last.type, last.response.error.type) == ("response.failed", "upstream_error")


def test_openai_gets_reasoning_and_an_incomplete_response(truncating_server):
    with client(truncating_server.url, "py-incomplete") as openai_client:
        with openai_client.responses.stream(model="default", input="hello") as stream:
            last = [*stream][-1].response
        stored = openai_client.responses.retrieve(last.id)

    assert (stored.status, stored.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert [item.type for item in stored.output] == [item.type for item in last.output] == ["reasoning", "message"]
    assert (stored.output[0].content[0].text, stored.output_text) == ("The user wants a verse.", "In the beginning")
    assert (stored.usage.input_tokens, stored.usage.output_tokens, stored.usage.total_tokens) == (9, 4, 13)


def test_openai_stops_a_response_by_disconnecting(server):
    with client(server.url, "py-response-leaves") as openai_client:
        with openai_client.responses.create(model="default", input="/slow 600 one two", stream=True) as stream:
            response_id = next(stream).response.id

        assert eventually(lambda: openai_client.responses.retrieve(response_id).status == "cancelled", 25)
    assert Browser(server, "py-response-leaves").active() == []
