"""One request, and the JSON it may be answered with."""

import json
import re
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from math import isfinite
from time import monotonic
from typing import Any, Final
from urllib.parse import urlencode

import requests
from requests.structures import CaseInsensitiveDict

from bff.errors import UpstreamError, UpstreamFailure, UpstreamTimeout, UpstreamUnavailable
from bff.http import waiting
from bff.http.waiting import Waiter
from bff.upstream.http.byte_stream import LIBRARY_ERRORS, ByteStream
from bff.upstream.http.response_wait import ResponseWait, response_wait

HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": "chat-bff"}
JSON_MAX_BYTES: Final = 1024 * 1024


def send(
    session: requests.Session,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str | bytes],
    connect: float,
    deadline: float,
    params: Mapping[str, str] | None = None,
    body: Any = None,
    waiter: Waiter | None = None,
) -> requests.Response:
    """One request, its answer's body unread; `body` goes out as JSON. `connect` is in seconds, `deadline` a monotonic moment.

    With a `waiter` the answer is waited for there, and whatever ends the watch is raised.
    Redirects are not followed: they would carry our key to another host.
    Raises UpstreamUnavailable when nobody answers, UpstreamTimeout when nobody answers in time.
    """
    left = _left(deadline)
    request = _prepared(method, f"{url}?{urlencode(params)}" if params else url, headers, body)
    token = response_wait.set(ResponseWait(waiter, deadline))
    try:
        # The adapter itself: what the session would add are cookies and redirects.
        return session.get_adapter(url).send(request, stream=True, timeout=(min(connect, left), left), verify=True)
    except LIBRARY_ERRORS as error:
        _clear_frames(error)
        raise _failure(error, method) from error
    finally:
        response_wait.reset(token)


def _failure(error: Exception, method: str) -> UpstreamFailure:
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return UpstreamUnavailable(detail="no connection in time")
    if isinstance(error, requests.exceptions.ReadTimeout):
        return UpstreamTimeout(detail=f"no answer to {method} in time")
    return UpstreamUnavailable(detail=f"{method} failed: {type(error).__name__}")


def _clear_frames(error: BaseException | None) -> None:
    """urllib3 keeps errors in local variables of the frames in their tracebacks: a cycle that includes the request's body."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _prepared(method: str, url: str, headers: Mapping[str, str | bytes], body: Any) -> requests.PreparedRequest:
    """Put together by hand: URLs and headers are ours and in order, and having them checked costs more than sending them."""
    request = requests.PreparedRequest()
    request.method = method
    request.url = url
    fields: dict[str, Any] = {**HEADERS, **headers}
    request.headers = CaseInsensitiveDict(fields)
    if body is not None:
        request.body = json.dumps(body, separators=(",", ":")).encode()
        request.headers["Content-Type"] = "application/json"
        request.headers["Content-Length"] = str(len(request.body))
    return request


def read_json(
    response: requests.Response, deadline: float, waiter: Waiter | None = None, most: int = JSON_MAX_BYTES
) -> dict[str, Any]:
    """The JSON object an answer holds; its connection goes back to the pool.

    With a `waiter` it is waited for there, and whatever ends the watch is raised.
    Raises UpstreamError for anything else, or more than `most` bytes of it; UpstreamTimeout when it is not whole by `deadline`.
    """
    try:
        content = _DECODE(_read(response, deadline, waiter, most).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UpstreamError(detail="an answer that is no JSON") from error
    if not isinstance(content, dict):
        raise UpstreamError(detail="an answer that is no JSON object")
    return content


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{text} is no number in JSON, nor for any browser")
    return value


_DECODE: Final = json.JSONDecoder(parse_constant=_finite, parse_float=_finite).decode


def _read(response: requests.Response, deadline: float, waiter: Waiter | None, most: int) -> bytes:
    with ExitStack() as over:
        source = ByteStream(response, max(0.0, deadline - monotonic()))
        over.callback(source.close)
        if waiter is None:
            waiter = waiting.new_waiter()
            over.callback(waiter.close)
        waiter.wake_at = deadline
        pieces, size = [], 0
        for piece in source.chunks(waiter):
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise UpstreamError(detail="an answer of too many bytes")
            _left(deadline)
    return b"".join(pieces)


def read_url(session: requests.Session, url: str, seconds: float) -> dict[str, Any]:
    """The JSON object that is to be had at `url` for everybody, within `seconds`. Raises an UpstreamFailure."""
    deadline = monotonic() + seconds
    response = send(session, "GET", url, headers={"Accept": "application/json"}, connect=seconds, deadline=deadline)
    if response.status_code != 200:
        response.close()
        raise UpstreamError(detail=f"a GET was answered {response.status_code}")
    return read_json(response, deadline)


def retry_after(response: requests.Response, default: int) -> int:
    """Seconds, within reason."""
    text = response.headers.get("Retry-After", "")
    return max(1, min(int(text), 3600)) if re.fullmatch("[0-9]{1,6}", text) else default


def _left(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise UpstreamTimeout(detail="no time left")
    return left
