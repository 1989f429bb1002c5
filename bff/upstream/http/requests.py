"""Sends a request and reads a JSON response."""

import json
import re
import ssl
import traceback
from collections.abc import Iterator, Mapping
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
from bff.upstream.http.addresses import PrivateAddress
from bff.upstream.http.byte_stream import LIBRARY_ERRORS, ByteStream
from bff.upstream.http.response_wait import ResponseWait, response_wait

HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": "chat-bff"}
JSON_MAX_BYTES: Final = 1024 * 1024
UNKNOWN_AUTHORITY: Final = frozenset({18, 19, 20, 21})
"""OpenSSL's codes for certificates that are self-signed or whose issuer is unknown (X509_V_ERR_*)."""
PROXY_REFUSAL: Final = re.compile(r"Tunnel connection failed: ([0-9]{3})")
"""The text of http.client's OSError."""


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
    """Sends one request and returns the response with its body unread.

    `body` is sent as JSON; bytes are JSON already. `connect` is in seconds, `deadline` a moment (monotonic) for the response's
    headers. Waits with `waiter`, if given. Does not follow redirects, which would send our key to another host.

    Raises UpstreamUnavailable if the connection fails, UpstreamTimeout at `deadline`, and the reason if `waiter` is cancelled.
    """
    timeout = _time_left(deadline)
    request = _prepare(method, f"{url}?{urlencode(params)}" if params else url, headers, body)
    token = response_wait.set(ResponseWait(waiter, deadline))
    try:
        # The adapter is called directly: the session would add cookies and redirects.
        return session.get_adapter(url).send(request, stream=True, timeout=(min(connect, timeout), timeout), verify=True)
    except LIBRARY_ERRORS as error:
        _clear_frames(error)
        raise _to_upstream_failure(error, method) from error
    finally:
        response_wait.reset(token)


def _to_upstream_failure(error: Exception, method: str) -> UpstreamFailure:
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return UpstreamUnavailable(detail="no connection in time")
    if isinstance(error, requests.exceptions.ReadTimeout):
        return UpstreamTimeout(detail=f"no response to {method} in time")
    return UpstreamUnavailable(detail=f"{method} failed: {_reason(error)}")


def _reason(error: Exception) -> str:
    """What the operator can change, or else the error's type."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            hint = ", which CA_FILE can name" if cause.verify_code in UNKNOWN_AUTHORITY else ""
            return f"the certificate is not trusted ({cause.verify_message}{hint})"
        if isinstance(cause, PrivateAddress):
            return str(cause)
        if refusal := PROXY_REFUSAL.search(str(cause)):
            return f"the proxy refused to connect with status {refusal[1]}: see HTTPS_PROXY"
    if isinstance(error, requests.exceptions.ProxyError):
        return "no connection to the proxy: see HTTPS_PROXY"
    return type(error).__name__


def _causes(error: BaseException | None, depth: int = 8) -> Iterator[BaseException]:
    """The error, the errors that it wraps, and those that it was raised from."""
    if error is None or not depth:
        return
    yield error
    for argument in (*error.args, getattr(error, "reason", None)):
        if isinstance(argument, BaseException):
            yield from _causes(argument, depth - 1)
    yield from _causes(error.__cause__ or error.__context__, depth - 1)


def _clear_frames(error: BaseException | None) -> None:
    """Breaks a reference cycle: urllib3 stores errors in frames of their own tracebacks, which also hold the request's body."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _prepare(method: str, url: str, headers: Mapping[str, str | bytes], body: Any) -> requests.PreparedRequest:
    """Skips `PreparedRequest.prepare`: our URLs and headers are valid, and checking them costs more than sending them."""
    request = requests.PreparedRequest()
    request.method = method
    request.url = url
    all_headers: dict[str, Any] = {**HEADERS, **headers}
    request.headers = CaseInsensitiveDict(all_headers)
    if body is not None:
        request.body = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
        request.headers["Content-Type"] = "application/json"
        request.headers["Content-Length"] = str(len(request.body))
    return request


def read_json(
    response: requests.Response, deadline: float, waiter: Waiter | None = None, max_bytes: int = JSON_MAX_BYTES
) -> dict[str, Any]:
    """Reads a response that is a JSON object, and returns its connection to the pool. Waits with `waiter`, if given.

    Raises UpstreamError for anything else or more than `max_bytes`, UpstreamTimeout if it is not complete at `deadline`
    (monotonic), and the reason if `waiter` is cancelled.
    """
    try:
        content = _DECODE(read_body(response, deadline, waiter, max_bytes).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UpstreamError(detail="the response is not JSON") from error
    if not isinstance(content, dict):
        raise UpstreamError(detail="the response is not a JSON object")
    return content


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{text} is not a JSON number")
    return value


_DECODE: Final = json.JSONDecoder(parse_constant=_finite, parse_float=_finite).decode


def read_body(response: requests.Response, deadline: float, waiter: Waiter | None, max_bytes: int) -> bytes:
    """As `read_json`, for any bytes."""
    with ExitStack() as cleanup:
        source = ByteStream(response, max(0.0, deadline - monotonic()))
        cleanup.callback(source.close)
        if waiter is None:
            waiter = waiting.new_waiter()
            cleanup.callback(waiter.close)
        waiter.wake_at = deadline
        pieces, size = [], 0
        for piece in source.chunks(waiter):
            pieces.append(piece)
            size += len(piece)
            if size > max_bytes:
                raise UpstreamError(detail=f"a response of more than {max_bytes} bytes")
            _time_left(deadline)
    return b"".join(pieces)


def read_url(session: requests.Session, url: str, seconds: float) -> dict[str, Any]:
    """Fetches a JSON object from a public URL within `seconds`. Raises an UpstreamFailure."""
    deadline = monotonic() + seconds
    response = send(session, "GET", url, headers={"Accept": "application/json"}, connect=seconds, deadline=deadline)
    if response.status_code != 200:
        response.close()
        raise UpstreamError(detail=f"the response to a GET was {response.status_code}")
    return read_json(response, deadline)


def retry_after(response: requests.Response, default: int) -> int:
    """The response's Retry-After in seconds, between 1 and 3600."""
    text = response.headers.get("Retry-After", "")
    return max(1, min(int(text), 3600)) if re.fullmatch("[0-9]{1,6}", text) else default


def _time_left(deadline: float) -> float:
    """Seconds. Raises UpstreamTimeout if there are none."""
    seconds = deadline - monotonic()
    if seconds <= 0:
        raise UpstreamTimeout(detail="no time left")
    return seconds
