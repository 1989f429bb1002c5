"""/v1: what OpenAI's clients ask for. Its shapes are OpenAI's; here they are as far as we fill them."""

from typing import Any, Final, Literal

from pydantic import BaseModel

from bff import errors
from bff.api.adapters.openai import CompletionRequest
from bff.api.openapi.answers import Passed
from bff.api.openapi.operation import BEHIND, BODY, MINE, ONCE, PLACE, Answer, Operation


class OpenAIProblem(BaseModel):
    """Every failure under /v1; `error.code` is as everywhere here."""

    error: dict[str, Any]


class Choice(Passed):
    index: int
    finish_reason: str | None


class Completion(Passed):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]


class Chunk(Passed):
    """A piece of one. The text `[DONE]`, which is no JSON, comes after the last."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[Choice]


class ModelName(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelNames(BaseModel):
    object: Literal["list"]
    data: list[ModelName]


OPERATIONS: Final = {
    "POST /v1/chat/completions": Operation(
        "Say something, as OpenAI's clients do; with `stream`, the answer streams.",
        {
            200: Answer(
                "The answer, or its pieces.",
                Completion,
                headers={"X-Message-ID": "The message's id."},
                events={"message": (Chunk, OpenAIProblem)},
            )
        },
        (*MINE, *BODY, *PLACE, *BEHIND, errors.NotFound, errors.Busy, errors.Expired, errors.IdempotencyConflict),
        problem=OpenAIProblem,
        body=CompletionRequest,
        parameters=(ONCE,),
    ),
    "GET /v1/models": Operation("Who answers.", {200: Answer("All of them.", ModelNames)}, problem=OpenAIProblem),
    "GET /v1/models/<path:name>": Operation(
        "One of them.", {200: Answer("It.", ModelName)}, (*MINE, errors.NotFound), problem=OpenAIProblem
    ),
}
