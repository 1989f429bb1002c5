"""Maps a broker's error responses to our exceptions. The broker's own error text never reaches the client."""

import contextlib
from collections.abc import Collection, Iterator
from typing import Final

from bff import errors
from bff.errors import (
    BY_CODE,
    ChatError,
    StorageUnavailable,
    UpstreamError,
    UpstreamFailure,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from bff.upstream import http
from bff.upstream.http import Response
from bff.upstream.message_ids import MESSAGE_ID

RETRY_SECONDS: Final = 2
"""Default `retry_after` when a reply's stream could not be opened."""
EXTERNAL_CODES: Final = (
    errors.InvalidRequest,
    errors.NotFound,
    errors.Busy,
    errors.Expired,
    errors.IdempotencyConflict,
    errors.TooManyRequests,
)
"""Accepted in `code` from a broker with our contract. A 404 without a code means that its URL is wrong."""
BUNDLED_CODES: Final = (
    *EXTERNAL_CODES,
    errors.ServerFull,
    errors.ServerRestarting,
    UpstreamError,
    UpstreamUnavailable,
    UpstreamTimeout,
)
"""Accepted from the bundled broker, which also reports its own state and its upstreams'."""


def to_chat_error(response: Response, deadline: float, accepted: Collection[type[ChatError]]) -> ChatError:
    """The error for a response whose status is not a success. `accepted`: the classes that its `code` may name."""
    status = response.status_code
    seconds = http.retry_after(response, default=RETRY_SECONDS)
    has_retry_after = "Retry-After" in response.headers
    try:
        content = http.read_json(response, deadline)
    except UpstreamFailure:
        content = {}
    kind = BY_CODE.get(code) if isinstance(code := content.get("code"), str) else None
    if kind is not None and kind in accepted and kind.status == status:
        message_id = content.get("message_id")
        return kind(
            retry_after=seconds if has_retry_after else None,
            message_id=message_id if isinstance(message_id, str) and MESSAGE_ID.fullmatch(message_id) else "",
        )
    if status == 429:
        return errors.TooManyRequests(retry_after=seconds)
    if status == 503:
        return StorageUnavailable(detail="the broker responded with 503", retry_after=seconds)
    return UpstreamError.from_status("broker", status)


@contextlib.contextmanager
def retryable(kind: type[UpstreamFailure]) -> Iterator[None]:
    """Sets `retry_after` on failures of this kind: the message may have been enqueued, and its reply continues unread."""
    try:
        yield
    except kind as problem:
        problem.retry_after = problem.retry_after or RETRY_SECONDS
        raise
