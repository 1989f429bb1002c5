"""Descriptions of routes → one OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1)."""

import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from bff import __version__
from bff.api.openapi import chat, conversations, openai, ops
from bff.api.openapi.answers import Problem
from bff.api.openapi.operation import Answer, Model, Operation, Parameter, bodies_of
from bff.auth.identity import COOKIE
from bff.errors import ChatError

OPERATIONS: Final[dict[str, Operation]] = {**chat.OPERATIONS, **conversations.OPERATIONS, **openai.OPERATIONS, **ops.OPERATIONS}

REF: Final = "#/components/schemas/{model}"
WAYS_IN: Final = {
    "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "AUTH_MODE=anonymous: we set it."},
    "token": {"type": "http", "scheme": "bearer", "description": "AUTH_MODE=jwt."},
    "proxy": {"type": "apiKey", "in": "header", "name": "X-Proxy-Secret", "description": "AUTH_MODE=proxy: the proxy's."},
}
REQUEST_ID: Final = {"X-Request-ID": {"schema": {"type": "string"}, "description": "Kept, if the request has one."}}


def document(routes: Iterable[str]) -> dict[str, Any]:
    """`routes`: as `GET /api/chat/stream/<message_id>`, each of them described here: tests see to it."""
    described = {route: OPERATIONS[route] for route in routes if route in OPERATIONS}
    paths: dict[str, dict[str, Any]] = {}
    for route, operation in described.items():
        method, rule = route.split()
        paths.setdefault(_template(rule), {})[method.lower()] = _operation(rule, operation) | {"operationId": _name(route)}
    return {
        "openapi": "3.1.1",
        "info": {"title": "chat-bff", "version": __version__, "license": {"name": "MIT", "identifier": "MIT"}},
        "security": [{name: []} for name in WAYS_IN],
        "paths": paths,
        "components": {"schemas": _schemas(described.values()), "securitySchemes": WAYS_IN},
    }


def _template(rule: str) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def _name(route: str) -> str:
    return "_".join(re.findall(r"\w+", route)).lower()


def _operation(rule: str, operation: Operation) -> dict[str, Any]:
    parameters = [*_of_path(rule), *_of_query(operation.query), *operation.parameters]
    content: dict[str, Any] = {"summary": operation.summary, "responses": _responses(operation)}
    if parameters:
        content["parameters"] = [_parameter(parameter) for parameter in parameters]
    if models := bodies_of(operation):
        schema = _ref(models[0]) if len(models) == 1 else {"anyOf": [_ref(model) for model in models]}
        content["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return content | ({"security": []} if operation.public else {})


def _of_path(rule: str) -> Iterator[Parameter]:
    for kind, name in re.findall(r"<(?:(\w+):)?(\w+)>", rule):
        schema = {"type": "string", "format": "uuid"} if kind == "uuid" else {"type": "string"}
        yield Parameter(name, schema, place="path", required=True)


def _of_query(model: Model | None) -> Iterator[Parameter]:
    for name, schema in model.model_json_schema()["properties"].items() if model else ():
        yield Parameter(name, schema)


def _parameter(parameter: Parameter) -> dict[str, Any]:
    content = {"name": parameter.name, "in": parameter.place, "required": parameter.required, "schema": parameter.schema}
    return content | ({"description": parameter.description} if parameter.description else {})


def _responses(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {str(status): _answer(answer) for status, answer in operation.answers.items()}
    for status in sorted({kind.status for kind in operation.errors} - set(operation.answers)):
        kinds = [kind for kind in operation.errors if kind.status == status]
        found[str(status)] = _problem(HTTPStatus(status).phrase, kinds, operation.problem)
    return found


def _problem(phrase: str, kinds: list[type[ChatError]], shape: Model) -> dict[str, Any]:
    codes = sorted({kind.code for kind in kinds})
    schema = {"allOf": [_ref(shape)], "properties": {"code": {"enum": codes}}} if shape is Problem else _ref(shape)
    headers: dict[str, Any] = dict(REQUEST_ID)
    if any(kind.retry_after is not None for kind in kinds):
        headers["Retry-After"] = {"schema": {"type": "integer"}, "description": "Seconds."}
    return {
        "description": f"{phrase}: {', '.join(codes)}",
        "headers": headers,
        "content": {"application/json": {"schema": schema}},
    }


def _answer(answer: Answer) -> dict[str, Any]:
    told = {name: {"schema": {"type": "string"}, "description": what} for name, what in answer.headers.items()}
    content: dict[str, Any] = {"description": answer.description, "headers": REQUEST_ID | told}
    if body := _body(answer):
        content["content"] = body
    return content


def _body(answer: Answer) -> dict[str, Any]:
    """OpenAPI 3.1 has no word for what is in an event stream: `x-events` has each event type's schema."""
    body: dict[str, Any] = {answer.media_type: {}} if answer.media_type else {}
    if answer.model:
        body["application/json"] = {"schema": _ref(answer.model)}
    if answer.events:
        events = {name: {"oneOf": [_ref(model) for model in models]} for name, models in answer.events.items()}
        body["text/event-stream"] = {"x-events": events}
    return body


def _ref(model: Model) -> dict[str, str]:
    return {"$ref": REF.format(model=model.__name__)}


def _schemas(operations: Iterable[Operation]) -> dict[str, Any]:
    models = {model for operation in operations for model in _models(operation)}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, found = models_json_schema([(model, "validation") for model in ordered], ref_template=REF)
    schemas: dict[str, Any] = found["$defs"]
    return schemas


def _models(operation: Operation) -> Iterator[Model]:
    yield operation.problem
    yield from bodies_of(operation)
    for answer in operation.answers.values():
        if answer.model:
            yield answer.model
        for models in answer.events.values():
            yield from models
