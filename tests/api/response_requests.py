"""Requests to /v1/responses, whose objects and events must have the types of OpenAI's client."""

import json
from typing import Any

from flask.testing import FlaskClient
from openai.types.responses import Response, ResponseItemList, ResponseStreamEvent
from pydantic import TypeAdapter
from werkzeug.test import TestResponse

from tests.live import who

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
REQUIRED = {
    "id object created_at completed_at status incomplete_details model previous_response_id instructions output error tools"
    " tool_choice truncation parallel_tool_calls text top_p presence_penalty frequency_penalty top_logprobs temperature"
    " reasoning user usage max_output_tokens max_tool_calls store background service_tier metadata safety_identifier"
    " prompt_cache_key"
}
"""Fields that Open Responses requires, of which OpenAI's types make many optional."""


def post(browser: FlaskClient, content: Any = "one two three", user: str = "ada", key: str = "", **fields: Any) -> TestResponse:
    headers = who(user) | ({"Idempotency-Key": key} if key else {})
    return browser.post("/v1/responses", json={"model": "echo", "input": content} | fields, headers=headers)


def get(browser: FlaskClient, response_id: str, path: str = "", user: str = "ada") -> TestResponse:
    return browser.get(f"/v1/responses/{response_id}{path}", headers=who(user))


def created(browser: FlaskClient, *args: Any, **fields: Any) -> dict[str, Any]:
    """The response object."""
    answer = post(browser, *args, **fields)
    assert answer.status_code == 200, answer.text
    return checked(answer.json)


def checked(content: Any) -> dict[str, Any]:
    """A response object, validated."""
    Response.model_validate_json(json.dumps(content), strict=True)
    assert {name for names in REQUIRED for name in names.split()} <= content.keys()
    return dict(content)


def items(content: Any) -> list[dict[str, Any]]:
    """The data of a list of items, validated."""
    ResponseItemList.model_validate_json(json.dumps(content), strict=True)
    return list(content["data"])


def events(body: str) -> list[dict[str, Any]]:
    """The events of a stream, validated."""
    found = []
    for frame in body.split("\n\n"):
        lines = [line for line in frame.split("\n") if line and not line.startswith(":")]
        if lines:
            name, data = (line.partition(": ")[2] for line in lines)
            content = json.loads(data)
            assert name == content["type"]
            assert type(EVENT.validate_json(data, strict=True)).model_fields["type"].annotation.__args__ == (name,)
            if "response" in content:
                checked(content["response"])
            found.append(content)
    return found


def types(found: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in found]


def text(response: dict[str, Any]) -> str:
    """Of the messages in its output."""
    return "".join(part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"])
