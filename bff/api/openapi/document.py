"""Builds the OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1) from the descriptions of routes."""

import re
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from bff import __version__
from bff.api.openapi.operation import Model, Operation, Parameter, ResponseSpec
from bff.api.openapi.schemas import Problem
from bff.auth.identity import COOKIE
from bff.errors import ChatError

REF: Final = "#/components/schemas/{model}"
SECURITY_SCHEMES: Final = {
    "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "AUTH_MODE=anonymous: set by the server."},
    "token": {"type": "http", "scheme": "bearer", "description": "AUTH_MODE=jwt."},
    "proxy": {"type": "apiKey", "in": "header", "name": "X-Proxy-Secret", "description": "AUTH_MODE=proxy: set by the proxy."},
}
INFO: Final = {
    "title": "chat-bff",
    "version": __version__,
    "description": "Streams replies of an AI engine to browsers as server-sent events. docs/protocol.md explains the streams.",
    "contact": {"name": "The operator of this server"},
    "license": {"name": "MIT", "identifier": "MIT"},
}
TAGS: Final = {
    "chat": "Direct chat: messages, their streams, and stopping them.",
    "conversations": "Stored conversations, their messages, and agents' replies.",
    "user": "The user's history, preferences, recordings and tickets.",
    "openai": "The protocol of OpenAI's clients.",
    "operations": "Health, metrics, diagnostics, this document, and the page.",
}
TAG_OF_PREFIX: Final = {
    "/api/chat/history": "user",
    "/api/chat": "chat",
    "/api/conversations": "conversations",
    "/api/agents": "conversations",
    "/api/diagnostics": "operations",
    "/api/": "user",
    "/v1/": "openai",
    "/": "operations",
}
"""The first prefix of a path decides."""
REQUEST_ID: Final = {"X-Request-ID": {"schema": {"type": "string"}, "description": "The request's own, if it has one."}}


def document(routes: Mapping[str, Operation | None], root: str = "/") -> dict[str, Any]:
    """`routes`: descriptions by route, such as `GET /api/chat/stream/<message_id>`. Routes without one are left out.

    `root`: the path that all of them are below.
    """
    described = {route: operation for route, operation in routes.items() if operation is not None}
    paths: dict[str, dict[str, Any]] = {}
    for route, operation in described.items():
        method, rule = route.split()
        paths.setdefault(_path(rule), {})[method.lower()] = _operation(rule, operation) | {"operationId": _operation_id(route)}
    return {
        "openapi": "3.1.1",
        "info": INFO,
        "servers": [{"url": root, "description": "The server that this document came from."}],
        "tags": [{"name": name, "description": description} for name, description in TAGS.items()],
        "security": [{name: []} for name in SECURITY_SCHEMES],
        "paths": paths,
        "components": {"schemas": _schemas(described.values()), "securitySchemes": SECURITY_SCHEMES},
    }


def _path(rule: str) -> str:
    """Flask's `<uuid:name>` as OpenAPI's `{name}`."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def _operation_id(route: str) -> str:
    return "_".join(re.findall(r"\w+", route)).lower()


def _operation(rule: str, operation: Operation) -> dict[str, Any]:
    parameters = [*_path_parameters(rule), *_query_parameters(operation.query), *operation.parameters]
    content: dict[str, Any] = {"tags": [_tag(rule)], "summary": operation.summary, "description": _description(operation)}
    content["responses"] = _responses(operation)
    if parameters:
        content["parameters"] = [_parameter(parameter) for parameter in parameters]
    if models := operation.bodies:
        schema = _ref(models[0]) if len(models) == 1 else {"anyOf": [_ref(model) for model in models]}
        content["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return content | ({"security": []} if operation.public else {})


def _tag(rule: str) -> str:
    return next(tag for prefix, tag in TAG_OF_PREFIX.items() if rule.startswith(prefix))


def _description(operation: Operation) -> str:
    """The summary, the successful responses and who may call it."""
    results = " ".join(f"{status}: {spec.description}" for status, spec in operation.responses.items())
    return f"{operation.summary} {results} {'Public.' if operation.public else 'For an authenticated user.'}"


def _path_parameters(rule: str) -> Iterator[Parameter]:
    for kind, name in re.findall(r"<(?:(\w+):)?(\w+)>", rule):
        schema = {"type": "string", "format": "uuid"} if kind == "uuid" else {"type": "string"}
        yield Parameter(name, schema, location="path", required=True)


def _query_parameters(model: Model | None) -> Iterator[Parameter]:
    for name, schema in model.model_json_schema()["properties"].items() if model else ():
        yield Parameter(name, schema)


def _parameter(parameter: Parameter) -> dict[str, Any]:
    content = {"name": parameter.name, "in": parameter.location, "required": parameter.required, "schema": parameter.schema}
    return content | ({"description": parameter.description} if parameter.description else {})


def _responses(operation: Operation) -> dict[str, Any]:
    found = {str(status): _response(spec) for status, spec in operation.responses.items()}
    for status in sorted({kind.status for kind in operation.errors} - set(operation.responses)):
        kinds = [kind for kind in operation.errors if kind.status == status]
        found[str(status)] = _error_response(HTTPStatus(status).phrase, kinds, operation.problem)
    return found


def _error_response(phrase: str, kinds: list[type[ChatError]], shape: Model) -> dict[str, Any]:
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


def _response(spec: ResponseSpec) -> dict[str, Any]:
    headers = {name: {"schema": {"type": "string"}, "description": text} for name, text in spec.headers.items()}
    response: dict[str, Any] = {"description": spec.description, "headers": REQUEST_ID | headers}
    if content := _content(spec):
        response["content"] = content
    return response


def _content(spec: ResponseSpec) -> dict[str, Any]:
    """OpenAPI 3.1 cannot describe the events of a stream, so the extension `x-events` has the schema of each event type."""
    content: dict[str, Any] = {spec.media_type: {}} if spec.media_type else {}
    if spec.model:
        content["application/json"] = {"schema": _ref(spec.model)}
    if spec.events:
        events = {name: {"oneOf": [_ref(model) for model in models]} for name, models in spec.events.items()}
        content["text/event-stream"] = {"x-events": events}
    return content


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
    yield from operation.bodies
    for spec in operation.responses.values():
        if spec.model:
            yield spec.model
        for models in spec.events.values():
            yield from models
