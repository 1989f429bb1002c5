"""Descriptions of routes → one OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1)."""

import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from bff import __version__
from bff.errors import ChatError
from bff.identity import COOKIE
from bff.routes.contract import chat, conversations, ops
from bff.routes.contract.answers import Problem
from bff.routes.contract.operation import Answer, Model, Operation, Parameter

OPERATIONS: Final[dict[str, Operation]] = {**chat.OPERATIONS, **conversations.OPERATIONS, **ops.OPERATIONS}

REF: Final = "#/components/schemas/{model}"
WAYS_IN: Final = {
    "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "AUTH_MODE=anonymous: we set it."},
    "token": {"type": "http", "scheme": "bearer", "description": "AUTH_MODE=jwt."},
    "proxy": {"type": "apiKey", "in": "header", "name": "X-Proxy-Secret", "description": "AUTH_MODE=proxy: the proxy's."},
}
REQUEST_ID: Final = {"X-Request-ID": {"schema": {"type": "string"}, "description": "Kept, if the request has one."}}


def document(routes: Iterable[str]) -> dict[str, Any]:
    """`routes`: as `GET /api/chat/stream/<message_id>`, each of them described here. Raises KeyError for one that is not."""
    described = {route: OPERATIONS[route] for route in routes}
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
    if operation.body:
        content["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(operation.body)}}}
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
        found[str(status)] = _problem(HTTPStatus(status).phrase, kinds)
    return found


def _problem(phrase: str, kinds: list[type[ChatError]]) -> dict[str, Any]:
    codes = sorted({kind.code for kind in kinds})
    schema = {"allOf": [_ref(Problem)], "properties": {"code": {"enum": codes}}}
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
    if answer.media_type:
        content["content"] = {answer.media_type: _body(answer)}
    return content


def _body(answer: Answer) -> dict[str, Any]:
    """OpenAPI 3.1 has no word for what is in an event stream: `x-events` has each event type's schema."""
    if answer.model:
        return {"schema": _ref(answer.model)}
    events = {name: {"oneOf": [_ref(model) for model in models]} for name, models in answer.events.items()}
    return {"x-events": events} if events else {}


def _ref(model: Model) -> dict[str, str]:
    return {"$ref": REF.format(model=model.__name__)}


def _schemas(operations: Iterable[Operation]) -> dict[str, Any]:
    models: set[Model] = {Problem, *(model for operation in operations for model in _models(operation))}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, found = models_json_schema([(model, "validation") for model in ordered], ref_template=REF)
    schemas: dict[str, Any] = found["$defs"]
    return schemas


def _models(operation: Operation) -> Iterator[Model]:
    if operation.body:
        yield operation.body
    for answer in operation.answers.values():
        if answer.model:
            yield answer.model
        for models in answer.events.values():
            yield from models
