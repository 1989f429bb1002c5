"""The body of `POST /api/v1/message`."""

from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import BaseModel, StrictStr, StringConstraints, model_validator

ENGINE_FIELDS: Final = {"client_id", "user_id", "message", "message_type", "audio_base64", "audio_format"} | {
    "conversation_id",
    "question_id",
    "agent_id",
    "regenerate",
    "messages",
    "options",
    "response_id",
}

Id = Annotated[StrictStr, StringConstraints(min_length=1, max_length=1024)]


class MessageRequest(BaseModel):
    """Unknown keys are ignored."""

    user_id: Id
    org_id: Id
    client_id: Id
    message: StrictStr
    message_type: Literal["text", "audio"] = "text"
    audio_base64: StrictStr | None = None
    audio_format: StrictStr | None = None
    client_message_id: Id | None = None
    callback_url: Annotated[StrictStr, StringConstraints(min_length=1, max_length=2048)] | None = None
    """Where the end of the message is delivered: see bff/broker/webhooks/."""
    on_busy: Literal["enqueue", "reject", "interrupt"] | None = None
    on_disconnect: Literal["continue", "cancel"] | None = None
    group: Annotated[StrictStr, StringConstraints(max_length=1024)] = ""
    handler: Literal["engine", "bundled", "external"] = "engine"
    run_scope: Annotated[StrictStr, StringConstraints(max_length=256)] = ""
    run_key: Annotated[StrictStr, StringConstraints(max_length=256)] = ""
    chat_id: Annotated[StrictStr, StringConstraints(max_length=256)] = ""
    """The client's id of the chat that the message belongs to: the queue's entries have it."""
    conversation_id: Id | None = None
    question_id: Id | None = None
    agent_id: Id | None = None
    regenerate: StrictStr | None = None
    messages: list[dict[str, Any]] | None = None
    options: dict[str, Any] | None = None
    response_id: Id | None = None
    message_uuid: UUID | None = None
    """The first part of the message's id; random by default. A `client_message_id` keeps it unique."""
    restartable: bool = True
    """False: the reply fails if its worker dies after the output has begun, whoever produces it."""

    @model_validator(mode="after")
    def _check_uuid(self) -> Self:
        if self.message_uuid is not None and self.client_message_id is None:
            raise ValueError("message_uuid needs a client_message_id")
        return self

    def for_engine(self) -> dict[str, Any]:
        return self.model_dump(include=ENGINE_FIELDS, exclude_none=True) | {"org": self.org_id}
