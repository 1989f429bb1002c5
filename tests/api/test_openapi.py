"""/openapi.json against the program: every route, every status, every body and every event."""

import json
import re
from http import HTTPStatus
from itertools import islice
from pathlib import Path

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from bff import __version__, errors
from bff.api import openapi
from bff.upstream import events
from tests.live import content_of
from tests.security.matrix import MATRIX, Owner, bearer, new_app

ADA = bearer("ada", "home")
IN_STREAMS = {"answer_incomplete", "answer_timeout", "interrupted"}
OF_NO_ROUTE = {"method_not_allowed"}

app = new_app(ECHO_WORD_SECONDS="0", MESSAGES_PER_MINUTE="1000000", QUEUE_DEPTH_PER_USER="1000000")
document = app.test_client().get("/openapi.json").json


def operation_of(route: str) -> dict:
    method, rule = route.split()
    return document["paths"][re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)][method.lower()]


def check(schema: dict, content: object) -> None:
    """Raises jsonschema_rs.ValidationError."""
    jsonschema_rs.validator_for(schema | {"components": document["components"]}).validate(content)


def described(route: str, response) -> dict:
    """The media type object of what was answered."""
    answers = operation_of(route)["responses"]
    assert str(response.status_code) in answers, route
    content = answers[str(response.status_code)].get("content", {})
    assert not content or content.keys() & {response.mimetype, "*/*"}, route
    return content.get(response.mimetype, {})


def test_it_is_an_openapi_document_of_this_version():
    schemathesis.openapi.from_dict(document).validate()

    assert (document["openapi"][:3], document["info"]["version"]) == ("3.1", __version__)


def test_every_route_is_described_and_nothing_else():
    paths = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}

    assert paths == {re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route) for route in openapi.routes(app)}


def test_every_reference_leads_somewhere():
    names = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))

    assert names == set(document["components"]["schemas"])


def test_every_code_is_at_its_status():
    told = {
        (int(status), code)
        for methods in document["paths"].values()
        for operation in methods.values()
        for status, answer in operation["responses"].items()
        for code in answer["description"].partition(": ")[2].split(", ")
        if answer["description"].startswith(HTTPStatus(int(status)).phrase)
    }

    wanted = {(kind.status, code) for code, kind in errors.BY_CODE.items() if code not in IN_STREAMS | OF_NO_ROUTE}
    assert told == wanted
    assert set(document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]) == set(errors.BY_CODE)


def test_every_event_has_a_schema():
    sources = Path(events.__file__).read_text() + Path(events.__file__).with_name("relay.py").read_text()
    said = {*re.findall(r'"type":\s*"(\w+)"', sources), *events.TERMINAL, "progress", "tool_use", "tool_result", "restart"}

    for route in ("POST /api/chat/stream", "GET /api/chat/stream/<message_id>"):
        listed = operation_of(route)["responses"]["200"]["content"]["text/event-stream"]["x-events"]["message"]["oneOf"]
        schemas = [document["components"]["schemas"][one["$ref"].rpartition("/")[2]] for one in listed]
        assert {schema["properties"]["type"]["const"] for schema in schemas} == said


@pytest.mark.parametrize("message", ["hello", "/tool", "/error", "/cut", "/unicode", "/big 10", "/help"])
def test_every_event_of_an_answer_is_as_its_schema_says(message):
    route = "POST /api/chat/stream"

    with app.test_client().post("/api/chat/stream", json={"message": message}, headers=ADA) as response:
        schema = described(route, response)["x-events"]["message"]
        said = [content_of(frame) for frame in response.text.split("\n\n") if frame]

    assert said[-1]["type"] in events.TERMINAL
    for content in said:
        check(schema, content)


@pytest.mark.parametrize(
    "wrong", [{"type": "complete", "response": {}}, {"type": "nonsense"}, {"type": "error", "error": "Oh."}, {"message": "hi"}]
)
def test_an_event_that_is_none_fits_no_schema(wrong):
    content = operation_of("POST /api/chat/stream")["responses"]["200"]["content"]

    with pytest.raises(jsonschema_rs.ValidationError):
        check(content["text/event-stream"]["x-events"]["message"], wrong)


def test_every_event_of_a_reply_is_as_its_schema_says():
    browser, rule = app.test_client(), "/api/conversations/<uuid:conversation_id>/stream"
    conversation = browser.post("/api/conversations", json={}, headers=ADA).json["id"]
    browser.post(f"/api/conversations/{conversation}/messages", json={"content": "two words"}, headers=ADA)

    with browser.get(f"/api/conversations/{conversation}/stream", headers=ADA) as response:
        schemas = described(f"GET {rule}", response)["x-events"]
        said = re.findall(r"^event: (\w+)\ndata: (.+)$", response.text, re.MULTILINE)

    assert [name for name, _ in said] == ["token", "token", "done"]
    for name, data in said:
        check(schemas[name], json.loads(data))


@pytest.mark.parametrize("route", [route for route in MATRIX if "static" not in route])
def test_what_everybody_is_answered_is_described(route):
    method, rule = route.split()
    owner, (_, json_body, query) = Owner(app), MATRIX[route]
    if not rule.startswith("/api/chat/"):
        stop(owner)  # It would be waited for.
    path = re.sub("<([^>]*)>", lambda variable: owner.owned[variable[1]], rule) + query.format(**owner.owned)

    for headers in owner.callers():
        with app.test_client(use_cookies=False).open(path, method=method, json=json_body, headers=headers) as response:
            content = described(route, response)
            if response.is_json:
                check(content["schema"], response.json)
            else:
                list(islice(response.response, 1))

    stop(owner)


def stop(owner: Owner) -> None:
    owner.post(f"/api/chat/stream/{owner.owned['message_id']}/stop", None)


load_all_checks()
schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])


@schema.exclude(path="/api/diagnostics/stream").parametrize()
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
@pytest.mark.timeout(120)
def test_nothing_that_tools_think_of_gets_an_answer_that_is_not_described(case):
    response = case.call(headers=ADA)

    case.validate_response(
        response,
        checks=[not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance],
    )
