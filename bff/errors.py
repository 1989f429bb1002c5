"""Everything that can go wrong, as one family.

    ChatError
    ├── InvalidRequest 400      ├── Busy 409                 ├── UpstreamFailure
    ├── Unauthorized 401        ├── Expired 410              │   ├── UpstreamError 502: it answered nonsense, or refused us
    ├── Forbidden 403           ├── LengthRequired 411       │   ├── UpstreamUnavailable 503: no connection, or it broke
    ├── NotFound 404            ├── TooLarge 413             │   ├── UpstreamTimeout 504: it was silent for too long
    ├── MethodNotAllowed 405    ├── UnsupportedMediaType 415 │   └── in streams: AnswerIncomplete, AnswerTimeout, Interrupted
    ├── InternalError 500       ├── RangeNotSatisfiable 416  ├── ServerRestarting 503
    └── TooManyRequests 429     └── IdempotencyConflict 422  └── ServerFull 503

    Away                           an UpstreamUnavailable that has lost nothing: only for now
    ClientDisconnected                     nobody is left to tell: no error, and nobody's answer
    └── Drained                    somebody is, and comes back elsewhere
    SettingsError                  the process cannot start

An error's text is a sentence for the user. What an upstream said about it is `detail`: for logs, never for a browser.
"""

from copy import copy
from typing import Any, ClassVar, Final, TypeVar

E = TypeVar("E", bound=Exception)


class SettingsError(Exception):
    """A setting is missing or makes no sense."""


class ClientDisconnected(Exception):
    """The browser is gone. Raised where a stream waits, it travels up the corridor and closes everything on its way."""

    status: ClassVar[int] = 499
    """For the log, in nginx's words: nobody is left to read it."""


class Draining(ClientDisconnected):
    """The reader is sent away without a last event, to go on elsewhere: this process is about to stop."""


class ChatError(Exception):
    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    message: ClassVar[str] = "Something went wrong on our side. Please try again."
    retry_after: int | None = None
    """Seconds after which trying again makes sense."""

    def __init__(self, message: str = "", *, detail: str = "", retry_after: int | None = None, message_id: str = "") -> None:
        super().__init__(message or self.message)
        self.detail = detail
        self.retry_after = self.retry_after if retry_after is None else retry_after
        self.message_id = message_id
        """The message it is about, where the one who asked may not know it."""

    def as_json(self, request_id: str) -> dict[str, Any]:
        return {"error": str(self), "code": self.code, "request_id": request_id}


class InternalError(ChatError):
    pass


class InvalidRequest(ChatError):
    status, code, message = 400, "invalid_request", "The request is not valid."


class Unauthorized(ChatError):
    status, code, message = 401, "unauthorized", "Please sign in."


class Forbidden(ChatError):
    status, code, message = 403, "forbidden", "This is not allowed from here."


class NotFound(ChatError):
    status, code, message = 404, "not_found", "There is nothing here."


class MethodNotAllowed(ChatError):
    status, code, message = 405, "method_not_allowed", "This address does not take that method."


class Busy(ChatError):
    status, code, message = 409, "busy", "Another message is being answered."


class Expired(ChatError):
    status, code, message = 410, "expired", "This answer is no longer kept."


class LengthRequired(ChatError):
    status, code, message = 411, "length_required", "The request must say how long its body is."


class TooLarge(ChatError):
    status, code, message = 413, "too_large", "This is too large."


class UnsupportedMediaType(ChatError):
    status, code, message = 415, "unsupported_media_type", "The body must be sent as application/json."


class RangeNotSatisfiable(ChatError):
    status, code, message = 416, "range_not_satisfiable", "The file has no such range."


class IdempotencyConflict(ChatError):
    status, code, message = 422, "idempotency_conflict", "This message id was used before for another message."


class TooManyRequests(ChatError):
    status, code, message = 429, "too_many_requests", "Too many requests. Please wait a moment."
    retry_after = 5


class ServerRestarting(ChatError):
    status, code, message = 503, "server_restarting", "The server is restarting. Please try again in a moment."
    retry_after = 1


class ServerFull(ChatError):
    status, code, message = 503, "server_full", "The server is full. Please try again in a moment."
    retry_after = 5


class UpstreamFailure(ChatError):
    """Whatever keeps a service behind us from answering."""


class UpstreamError(UpstreamFailure):
    status, code, message = 502, "upstream_error", "The assistant could not answer. Please try again."


class UpstreamUnavailable(UpstreamFailure):
    status, code, message = 503, "upstream_unavailable", "The assistant cannot be reached. Please try again in a moment."
    retry_after = 2


class StorageUnavailable(UpstreamUnavailable):
    """What keeps our state cannot be reached just now. What was asked for may have been done, or not."""


class UpstreamTimeout(UpstreamFailure):
    status, code, message = 504, "upstream_timeout", "The assistant took too long to answer. Please try again."


class AnswerIncomplete(UpstreamFailure):
    status, code, message = 502, "answer_incomplete", "The answer ended too early. Please try again."


class AnswerTimeout(UpstreamFailure):
    status, code, message = 504, "answer_timeout", "The answer took too long and was ended."


class Interrupted(UpstreamFailure):
    status, code, message = 502, "interrupted", "The answer was interrupted. Please try again."


def family(root: type[ChatError] = ChatError) -> list[type[ChatError]]:
    """`root` and all its descendants."""
    return [root, *(kind for child in root.__subclasses__() for kind in family(child))]


BY_CODE: Final = {kind.code: kind for kind in family() if kind not in {UpstreamFailure, StorageUnavailable}}


def by_status(status: int | None) -> ChatError:
    """What an error of Flask's own means."""
    kind: type[ChatError] = next((kind for kind in BY_CODE.values() if kind.status == status), InvalidRequest)
    return kind()


def detached(error: E) -> E:
    """A copy without traceback, cause and context, to store an exception, or to raise a stored one.

    A stored exception must not be raised itself: its traceback refers to the frames it passed, and they refer to the object
    that stores it. Only the garbage collector frees such a cycle, with everything the frames refer to.
    """
    return copy(error)
