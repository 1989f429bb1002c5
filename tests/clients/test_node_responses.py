"""OpenAI's JavaScript client and /v1/responses on a live server."""

from typing import Any

import pytest

pytestmark = [pytest.mark.live, pytest.mark.timeout(90)]

FIVE = "one two three four five"


@pytest.fixture(scope="module")
def responses(run_node) -> dict[str, Any]:
    return run_node("responses.mjs")


def test_openai_creates_streams_and_retrieves_a_response(responses):
    assert responses["whole"] == {"text": "Hello, whole world", "same": True, "status": "completed"}
    assert responses["helper"] == {"text": FIVE}


def test_openai_resumes_a_stream_after_each_event(responses):
    assert responses["resume"] == {"text": FIVE, "same": True, "last": "response.completed"}
    assert responses["resumeHelper"] == {"text": FIVE, "first": 5}


def test_openai_polls_and_cancels_in_the_background(responses):
    assert responses["background"] == {"text": "one two", "cancelled": "cancelled"}


def test_openai_continues_a_chain_lists_its_input_and_deletes_it(responses):
    chain = responses["chain"]

    assert (chain["items"], chain["previous"]) == (["two"], True)
    assert (chain["gone"]["status"], chain["gone"]["named"]) == (404, "NotFoundError")
    assert (chain["broken"]["status"], chain["broken"]["code"]) == (400, "previous_response_not_found")


def test_openai_raises_errors(responses):
    errors = responses["errors"]

    assert (errors["image"]["status"], errors["image"]["param"]) == (400, "input[0].content[0]")
    assert (errors["failed"]["status"], errors["failed"]["code"]) == (502, "upstream_error")
    assert errors["streamed"] == ["response.failed", "upstream_error"]


def test_openai_gets_reasoning_and_an_incomplete_response(responses):
    assert responses["truncated"] == {"status": "incomplete", "types": ["reasoning", "message"], "text": "In the beginning"}
