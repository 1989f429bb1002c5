"""A user's message: validates request bodies. Code after this trusts them."""

import binascii
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictStr, ValidationError, model_validator

from bff.errors import InvalidRequest, TooLarge
from bff.http import request_body

AUDIO_MAX_BYTES: Final = 25 * 1024 * 1024
AUDIO_FORMATS: Final = ("ogg", "mp3", "wav", "webm", "flac", "m4a")
AUDIO_SUBTYPES: Final = {name: name for name in AUDIO_FORMATS} | {
    "mpeg": "mp3",
    "x-mp3": "mp3",
    "mp4": "m4a",
    "x-m4a": "m4a",
    "wave": "wav",
    "x-wav": "wav",
    "vnd.wave": "wav",
    "x-flac": "flac",
}
"""Subtypes of `audio/`, registered (https://www.iana.org/assignments/media-types) or sent by browsers, → the format."""

PRINTABLE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,126}[\x21-\x7e])?")
"""A client's id for its message, 1 to 128 characters."""

_BASE64_SLICE: Final = 1024 * 1024  # A multiple of four; decoding it takes about a millisecond.


def _printable(text: str) -> str:
    if not PRINTABLE.fullmatch(text):
        raise ValueError("must be 1 to 128 printable characters")
    return text


ClientMessageId = Annotated[StrictStr, AfterValidator(_printable)]


Role = Literal["system", "developer", "user", "assistant", "tool"]


class ChatMessage(NamedTuple):
    """A message of a conversation, as passed to agents. Conversations have the roles `user` and `assistant` only."""

    role: Role
    content: str
    fields: Mapping[str, Any] = {}
    """Further fields in OpenAI's format: `tool_calls`, `tool_call_id`, `name`."""

    def as_json(self) -> dict[str, Any]:
        """In OpenAI's format."""
        return {"role": self.role, "content": self.content, **self.fields}


class ChatRequest(BaseModel):
    """The body of `POST /api/chat/stream` and `POST /api/chat`. Unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    message: StrictStr
    message_type: Literal["text", "audio"] = "text"
    audio_base64: StrictStr | None = Field(default=None, repr=False)
    audio_format: StrictStr | None = None
    client_message_id: ClientMessageId | None = None
    on_busy: Literal["enqueue", "reject", "interrupt"] | None = None

    @model_validator(mode="after")
    def _check_content(self) -> Self:
        if "\0" in self.message:
            raise ValueError("message must not contain NUL characters")
        if self.message_type == "text":
            if not self.message.strip():
                raise ValueError("message must not be blank")
            return self
        if not self.audio_base64 or not self.audio_format:
            raise ValueError("audio_base64 and audio_format are required for audio")
        if not _bare_format(self.audio_format):
            raise ValueError(f"audio_format must be one of {', '.join(AUDIO_FORMATS)}")
        return self

    def for_upstream(self) -> dict[str, Any]:
        """The fields that are sent to broker and engine."""
        content: dict[str, Any] = {"message": self.message, "message_type": self.message_type}
        if self.message_type == "audio":
            content |= {"audio_base64": self.audio_base64, "audio_format": _bare_format(self.audio_format or "")}
        return content


def _bare_format(text: str) -> str:
    """One of AUDIO_FORMATS for its name or media type, such as `audio/webm;codecs=opus`; "" for anything else."""
    media_type = text.partition(";")[0].strip(" \t").lower()
    return AUDIO_SUBTYPES.get(media_type.removeprefix("audio/"), "")


def parse(body: bytes, idempotency_key: str | None = None) -> ChatRequest:
    """Raises InvalidRequest, or TooLarge for audio over AUDIO_MAX_BYTES. `idempotency_key` overrides the body's."""
    request = request_body.parse(ChatRequest, body)
    if idempotency_key is not None:
        try:
            request = ChatRequest.model_validate(request.model_dump() | {"client_message_id": idempotency_key})
        except ValidationError as error:
            raise InvalidRequest(request_body.error_message(error)) from None
    if request.message_type == "audio":
        _check_audio(request.audio_base64 or "")
    return request


def _check_audio(text: str) -> None:
    if len(text) > AUDIO_MAX_BYTES * 4 // 3 + 4:
        raise TooLarge(f"The audio is larger than {AUDIO_MAX_BYTES // 2**20} MB.")
    size = 0
    try:
        for start in range(0, len(text), _BASE64_SLICE):
            piece = text[start : start + _BASE64_SLICE]
            if piece.endswith("=") and start + _BASE64_SLICE < len(text):
                raise ValueError("padding in the middle")
            size += len(binascii.a2b_base64(piece, strict_mode=True))
    except ValueError:  # binascii.Error is one, and so is a character outside ASCII.
        raise InvalidRequest("audio_base64: must be base64.") from None
    if size > AUDIO_MAX_BYTES:
        raise TooLarge(f"The audio is larger than {AUDIO_MAX_BYTES // 2**20} MB.")
