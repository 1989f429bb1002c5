"""The words in which a route is described."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from bff import errors
from bff.api.openapi.answers import Problem
from bff.errors import ChatError

Model = type[BaseModel]
Errors = tuple[type[ChatError], ...]

MINE: Final[Errors] = (
    errors.InvalidRequest,
    errors.Unauthorized,
    errors.Forbidden,
    errors.InternalError,
    errors.ServerRestarting,
)
"""What any door that wants to know who asks may answer."""
BODY: Final[Errors] = (errors.LengthRequired, errors.TooLarge, errors.UnsupportedMediaType)
PLACE: Final[Errors] = (errors.TooManyRequests, errors.ServerFull)
"""Where something is waited for."""
BEHIND: Final[Errors] = (errors.UpstreamError, errors.UpstreamUnavailable, errors.UpstreamTimeout)


class Answer(NamedTuple):
    description: str
    model: Model | None = None
    """Of JSON; with `events` too, it is the one or the other."""
    media_type: str = ""
    """Of what is neither."""
    headers: Mapping[str, str] = {}
    """By name, what each tells."""
    events: Mapping[str, tuple[Model, ...]] = {}
    """Of an event stream: by SSE event type, what `data` may be. "message" is the one of events without an `event:` line."""


class Parameter(NamedTuple):
    name: str
    schema: Mapping[str, Any]
    description: str = ""
    place: str = "query"
    required: bool = False


def text(most: int | None = None) -> dict[str, Any]:
    return {"type": "string"} | ({} if most is None else {"maxLength": most})


ONCE: Final = Parameter(
    "Idempotency-Key",
    text(128),
    "Asked again with the same one, it is answered once; wins over the body's client_message_id.",
    place="header",
)


class Operation(NamedTuple):
    summary: str
    answers: Mapping[int, Answer]
    errors: Errors = MINE
    problem: Model = Problem
    """The shape of these errors."""
    body: Model | tuple[Model, ...] | None = None
    """Several: any of them."""
    query: Model | None = None
    """One that validates a whole query."""
    parameters: tuple[Parameter, ...] = ()
    public: bool = False
    """Whether nobody is asked who they are."""


def bodies_of(operation: Operation) -> tuple[Model, ...]:
    match operation.body:
        case None:
            return ()
        case tuple(several):
            return several
        case one:
            return (one,)
