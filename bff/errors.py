"""All exceptions of the application, in one hierarchy.

    ChatError
    ├── InvalidRequest 400      ├── Busy 409                 ├── IdempotencyConflict 422
    ├── Unauthorized 401        ├── Expired 410              ├── TooManyRequests 429
    ├── Forbidden 403           ├── LengthRequired 411       ├── InternalError 500
    ├── NotFound 404            ├── TooLarge 413             ├── ServerRestarting 503
    ├── MethodNotAllowed 405    ├── UnsupportedMediaType 415 ├── ServerFull 503
    ├── RangeNotSatisfiable 416
    └── UpstreamFailure
        ├── UpstreamError 502: an invalid response, or a refusal
        ├── UpstreamUnavailable 503: no connection, or a lost one
        ├── UpstreamTimeout 504: no data within the timeout
        └── in streams: AnswerIncomplete, AnswerTimeout, ContextTooLong, Interrupted

    StorageUnavailable             an UpstreamUnavailable: the queue's or the limits' storage is unreachable for now
    ClientDisconnected             the client closed its connection; never sent as a response
    └── Draining                   this process stops; the client should reconnect to another one
    SettingsError                  the process cannot start

`str(error)` is a sentence for the user. `detail` holds what the upstream reported: it is logged and never sent to a browser.
"""

from copy import copy
from typing import Any, ClassVar, Final, Self, TypeVar

E = TypeVar("E", bound=Exception)


class SettingsError(Exception):
    """A setting is missing or invalid."""


class ClientDisconnected(Exception):
    """The client closed its connection. Raised where a stream waits; on its way up every generator closes what it holds."""

    status: ClassVar[int] = 499
    """For the log only; nginx logs the same code for a request that its client closed."""


class Draining(ClientDisconnected):
    """The process is stopping: the stream ends without a terminal event, and the client resumes on another process."""


class ChatError(Exception):
    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    message: ClassVar[str] = "Something went wrong on our side. Please try again."
    retry_after: int | None = None
    """Seconds to wait before a retry, sent as `Retry-After`."""

    def __init__(self, message: str = "", *, detail: str = "", retry_after: int | None = None, message_id: str = "") -> None:
        super().__init__(message or self.message)
        self.detail = detail
        self.retry_after = self.retry_after if retry_after is None else retry_after
        self.message_id = message_id
        """The id of the message that the error concerns, if the client may not know it."""

    def as_json(self, request_id: str) -> dict[str, Any]:
        return {"error": str(self), "code": self.code, "request_id": request_id}


class InternalError(ChatError):
    pass


class InvalidRequest(ChatError):
    status, code, message = 400, "invalid_request", "The request is not valid."

    def __init__(self, message: str = "", *, param: str = "", **fields: Any) -> None:
        """`param`: the field of the request that is not valid, if it is known."""
        super().__init__(message, **fields)
        self.param = param


class Unauthorized(ChatError):
    status, code, message = 401, "unauthorized", "Please sign in."


class Forbidden(ChatError):
    status, code, message = 403, "forbidden", "This is not allowed from here."


class NotFound(ChatError):
    status, code, message = 404, "not_found", "There is nothing here."


class MethodNotAllowed(ChatError):
    status, code, message = 405, "method_not_allowed", "This address does not allow that method."


class Busy(ChatError):
    status, code, message = 409, "busy", "Another message is being answered."


class Expired(ChatError):
    status, code, message = 410, "expired", "This answer is no longer kept."


class LengthRequired(ChatError):
    status, code, message = 411, "length_required", "The request must declare the length of its body."


class TooLarge(ChatError):
    status, code, message = 413, "too_large", "This is too large."


class UnsupportedMediaType(ChatError):
    status, code, message = 415, "unsupported_media_type", "The body must be sent as application/json."


class RangeNotSatisfiable(ChatError):
    status, code, message = 416, "range_not_satisfiable", "The file does not have this range."


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
    """Base class: a service behind us failed to reply."""


class UpstreamError(UpstreamFailure):
    status, code, message = 502, "upstream_error", "The assistant could not answer. Please try again."
    upstream_status: int | None = None
    """The status of the service's response, if that is what was wrong with it."""

    @classmethod
    def from_status(cls, service: str, status: int) -> Self:
        error = cls(detail=f"the {service} responded with {status}")
        error.upstream_status = status
        return error


class UpstreamUnavailable(UpstreamFailure):
    status, code, message = 503, "upstream_unavailable", "The assistant cannot be reached. Please try again in a moment."
    retry_after = 2


class StorageUnavailable(UpstreamUnavailable):
    """The storage cannot be reached for now. The operation may or may not have taken effect."""


class UpstreamTimeout(UpstreamFailure):
    status, code, message = 504, "upstream_timeout", "The assistant took too long to answer. Please try again."


class AnswerIncomplete(UpstreamFailure):
    status, code, message = 502, "answer_incomplete", "The answer ended too early. Please try again."


class AnswerTimeout(UpstreamFailure):
    status, code, message = 504, "answer_timeout", "The answer took too long and was ended."


class ContextTooLong(UpstreamFailure):
    status, code = 400, "context_too_long"
    message = "This is too long for the model. Please shorten your message or start a new conversation."
    tokens: int | None = None
    """The model's limit, if it is known."""
    started: bool = False
    """Whether output had begun."""


class Interrupted(UpstreamFailure):
    status, code, message = 502, "interrupted", "The answer was interrupted. Please try again."


def subclasses(root: type[ChatError] = ChatError) -> list[type[ChatError]]:
    """`root` and all its direct and indirect subclasses."""
    return [root, *(cls for child in root.__subclasses__() for cls in subclasses(child))]


BY_CODE: Final = {cls.code: cls for cls in subclasses() if cls not in {UpstreamFailure, StorageUnavailable}}


def error_for_status(status: int | None) -> ChatError:
    """The error for the status of a werkzeug HTTPException; InvalidRequest if none has that status."""
    error_class: type[ChatError] = next((cls for cls in BY_CODE.values() if cls.status == status), InvalidRequest)
    return error_class()


def detached(error: E) -> E:
    """A copy without traceback, cause and context. Use it to store an exception and to raise a stored one.

    Raising a stored exception creates a reference cycle: its traceback refers to frames that refer to the object that stores
    it. Only the garbage collector frees such a cycle, together with everything that the frames refer to.
    """
    return copy(error)
