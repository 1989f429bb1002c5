"""/openapi.json compared with the running app: its routes, statuses, bodies and events."""

import json
import re
from http import HTTPStatus
from itertools import islice
from pathlib import Path

import jsonschema_rs
import pytest
import schemathesis

from bff import __version__, errors
from bff.api import openapi
from bff.upstream import events
from tests.live import content_of
from tests.security.matrix import MATRIX, Owner, bearer, new_app

ADA = bearer("ada", "home")
NOT_IN_RESPONSES = {"answer_timeout", "interrupted", "method_not_allowed"}
"""Codes of errors in streams, and of requests that match no route."""

app = new_app(ECHO_WORD_SECONDS="0", MESSAGES_PER_MINUTE="1000000", QUEUE_DEPTH_PER_USER="1000000")
document = app.test_client().get("/openapi.json").json


def path_of(rule: str) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def operation_of(route: str) -> dict:
    method, rule = route.split()
    return document["paths"][path_of(rule)][method.lower()]


def validate(schema: dict, content: object) -> None:
    """Raises jsonschema_rs.ValidationError."""
    jsonschema_rs.validator_for(schema | {"components": document["components"]}).validate(content)


def media_type_object(route: str, response) -> dict:
    """The part of the document that describes the response's body. Asserts that its status and media type are described."""
    responses = operation_of(route)["responses"]
    assert str(response.status_code) in responses, route
    content = responses[str(response.status_code)].get("content", {})
    assert not content or content.keys() & {response.mimetype, "*/*"}, route
    return content.get(response.mimetype, {})


def test_the_document_is_valid_and_has_the_version():
    schemathesis.openapi.from_dict(document).validate()

    assert (document["openapi"][:3], document["info"]["version"]) == ("3.1", __version__)


def test_every_route_is_described():
    assert [route for route, operation in openapi.routes(app).items() if operation is None] == []


def test_only_routes_of_the_app_are_described():
    paths = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}

    assert paths == {path_of(route) for route in openapi.routes(app)}


def test_every_reference_has_a_schema():
    names = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))

    assert names == set(document["components"]["schemas"])


def test_every_error_code_is_listed_at_its_status():
    listed = {
        (int(status), code)
        for methods in document["paths"].values()
        for operation in methods.values()
        for status, response in operation["responses"].items()
        for code in response["description"].partition(": ")[2].split(", ")
        if response["description"].startswith(HTTPStatus(int(status)).phrase)
    }

    expected = {(kind.status, code) for code, kind in errors.BY_CODE.items() if code not in NOT_IN_RESPONSES}
    assert listed == expected
    assert set(document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]) == set(errors.BY_CODE)


def test_every_event_has_a_schema():
    sources = Path(events.__file__).read_text() + Path(events.__file__).with_name("relay.py").read_text()
    types = {*re.findall(r'"type":\s*"(\w+)"', sources), *events.TERMINAL, "progress", "tool_use", "tool_result", "restart"}

    for route in ("POST /api/chat/stream", "GET /api/chat/stream/<message_id>"):
        listed = operation_of(route)["responses"]["200"]["content"]["text/event-stream"]["x-events"]["message"]["oneOf"]
        schemas = [document["components"]["schemas"][one["$ref"].rpartition("/")[2]] for one in listed]
        assert {schema["properties"]["type"]["const"] for schema in schemas} == types


@pytest.mark.parametrize("message", ["hello", "/tool", "/error", "/cut", "/unicode", "/big 10", "/help"])
def test_chat_events_match_their_schemas(message):
    route = "POST /api/chat/stream"

    with app.test_client().post("/api/chat/stream", json={"message": message}, headers=ADA) as response:
        schema = media_type_object(route, response)["x-events"]["message"]
        contents = [content_of(frame) for frame in response.text.split("\n\n") if frame]

    assert contents[-1]["type"] in events.TERMINAL
    for content in contents:
        validate(schema, content)


@pytest.mark.parametrize(
    "event",
    [{"type": "complete", "response": {}}, {"type": "nonsense"}, {"type": "error", "error": "Oh."}, {"message": "hi"}],
)
def test_invalid_events_match_no_schema(event):
    content = operation_of("POST /api/chat/stream")["responses"]["200"]["content"]

    with pytest.raises(jsonschema_rs.ValidationError):
        validate(content["text/event-stream"]["x-events"]["message"], event)


def test_conversation_events_match_their_schemas():
    browser, route = app.test_client(), "GET /api/conversations/<uuid:conversation_id>/stream"
    conversation = browser.post("/api/conversations", json={}, headers=ADA).json["id"]
    browser.post(f"/api/conversations/{conversation}/messages", json={"content": "two words"}, headers=ADA)

    with browser.get(f"/api/conversations/{conversation}/stream", headers=ADA) as response:
        schemas = media_type_object(route, response)["x-events"]
        named = re.findall(r"^event: (\w+)\ndata: (.+)$", response.text, re.MULTILINE)

    assert [name for name, _ in named] == ["token", "token", "done"]
    for name, data in named:
        validate(schemas[name], json.loads(data))


@pytest.mark.parametrize("route", [route for route in MATRIX if "static" not in route])
def test_responses_to_all_kinds_of_callers_are_described(route):
    method, rule = route.split()
    owner, (_, json_body, query) = Owner(app), MATRIX[route]
    if not rule.startswith("/api/chat/"):
        stop(owner)  # Other routes would wait for the running reply.
    path = re.sub("<([^>]*)>", lambda variable: owner.owned[variable[1]], rule) + query.format(**owner.owned)

    for headers in owner.callers():
        with app.test_client(use_cookies=False).open(path, method=method, json=json_body, headers=headers) as response:
            content = media_type_object(route, response)
            if response.is_json:
                validate(content["schema"], response.json)
            else:
                list(islice(response.response, 1))

    stop(owner)


def stop(owner: Owner) -> None:
    owner.post(f"/api/chat/stream/{owner.owned['message_id']}/stop", None)
