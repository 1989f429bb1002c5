"""The description of a route, and the decorator that attaches it to a view."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from pydantic import BaseModel

from bff.api.openapi.schemas import Problem
from bff.errors import ChatError

Model = type[BaseModel]
Errors = tuple[type[ChatError], ...]
View = TypeVar("View", bound=Callable[..., Any])

_ATTRIBUTE: Final = "openapi_operation"


class ResponseSpec(NamedTuple):
    description: str
    model: Model | None = None
    """Of a JSON body. With `events`, the body is either JSON or an event stream."""
    media_type: str = ""
    """Of a body that is neither."""
    headers: Mapping[str, str] = {}
    """Names and descriptions."""
    events: Mapping[str, tuple[Model, ...]] = {}
    """For an event stream: the models of `data`, by SSE event type; "message" is the type of events without `event:` line."""


class Parameter(NamedTuple):
    name: str
    schema: Mapping[str, Any]
    description: str = ""
    location: str = "query"
    """query, header or path."""
    required: bool = False


class Operation(NamedTuple):
    """See `describe`."""

    summary: str
    responses: Mapping[int, ResponseSpec]
    errors: Errors
    problem: Model
    bodies: tuple[Model, ...]
    query: Model | None
    parameters: tuple[Parameter, ...]
    public: bool


def describe(
    summary: str,
    responses: Mapping[int, ResponseSpec],
    errors: Errors,
    *,
    problem: Model = Problem,
    bodies: tuple[Model, ...] = (),
    query: Model | None = None,
    parameters: tuple[Parameter, ...] = (),
    public: bool = False,
) -> Callable[[View], View]:
    """Describes a view for /openapi.json. The view itself is returned unchanged.

    `responses` are the successful ones, by status; `errors` have the shape `problem`. `bodies` are the models of a JSON
    request body, any of which is accepted; `query` is a model of all query parameters. `public` routes need no user.
    """
    operation = Operation(summary, responses, errors, problem, bodies, query, parameters, public)

    def attach(view: View) -> View:
        setattr(view, _ATTRIBUTE, operation)
        return view

    return attach


def operation_of(view: Callable[..., Any]) -> Operation | None:
    operation: Operation | None = getattr(view, _ATTRIBUTE, None)
    return operation
