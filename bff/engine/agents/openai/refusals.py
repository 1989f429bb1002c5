"""Error responses of a model's server, and errors inside its responses.

Their text may quote the user's message: only their code and type are logged. OpenAI's form is
`{"error": {"message", "type", "code"}}`; compatible servers leave out some of it, or use a form of their own.
"""

import json
import re
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from math import ceil
from time import monotonic, time
from typing import Any, Final, NamedTuple

from bff.errors import ChatError, ContextTooLong, TooManyRequests, UpstreamError, UpstreamFailure, UpstreamUnavailable
from bff.http.waiting import Waiter
from bff.upstream import http
from bff.upstream.http import Response

BUSY: Final = "The assistant is busy. Please try again in a moment."
BODY_SECONDS: Final = 5.0
BODY_MAX_BYTES: Final = 64 * 1024
RETRY_SECONDS: Final = 2
"""Default `retry_after` of a 429."""
MAX_RETRY_SECONDS: Final = 3600

_QUOTA: Final = frozenset({"insufficient_quota", "insufficient_balance", "billing_hard_limit_reached", "billing_not_active"})
"""Codes and types of a 429 that no wait ends."""
_TOO_LONG: Final = frozenset({"context_length_exceeded", "exceed_context_size_error", "model_context_window_exceeded"})
_TOO_LONG_TEXT: Final = re.compile(
    r"context[ _-]?(length|size|window)|maximum (context|prompt|model) length|max_model_len|(prompt|input) (is|are)? ?too long"
    r"|input length|input token|too many (input )?tokens|token limit|tokens? (count )?exceed|reduce the length|too large for",
    re.IGNORECASE,
)
"""What servers without a code of their own say, such as vLLM, llama.cpp, Ollama, LM Studio, TGI and gateways to others."""
_NEVER_TOO_LONG: Final = frozenset({401, 402, 403, 404, 429})
_TOKENS: Final = re.compile(r"(?<![\w.-])\d{3,8}(?![\w-]|\.\d)")
_LOGGABLE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_UNAVAILABLE: Final = frozenset({502, 503, 504, *range(520, 530)})
"""520 to 527 are Cloudflare's; 529 means an overloaded server."""


class Report(NamedTuple):
    """What a server says about a failure."""

    code: str = ""
    type: str = ""
    text: str = ""

    def __str__(self) -> str:
        """For the log: without the text."""
        named = [f"{name} {value}" for name, value in (("code", self.code), ("type", self.type)) if value]
        return "".join(f", {text}" for text in named)


def is_error(content: dict[str, Any]) -> bool:
    """Whether an object of a response reports an error, instead of a part of the reply or along with it."""
    if any(content.get(name) for name in ("error", "errors", "error_code", "error_msg", "detail")):
        return True
    if content.get("object") == "error" or content.get("type") == "error" or _minimax_status(content):
        return True
    choices = content.get("choices")
    if isinstance(choices, list):
        return any(isinstance(choice, dict) and choice.get("error") for choice in choices)
    return "message" in content or "code" in content


def _minimax_status(content: dict[str, Any]) -> Any:
    result = content.get("base_resp")
    return result.get("status_code") if isinstance(result, dict) else None


def error_in(content: dict[str, Any], *, started: bool) -> ChatError:
    """The error that a response with status 200 reports. `started`: after output."""
    report = parse_report(content)
    detail = f"an error in the model's response{report}"
    if not _is_too_long(report):
        return UpstreamError(detail=detail)
    problem = _too_long(report, detail)
    problem.started = started
    return problem


def error_of(response: Response, waiter: Waiter) -> ChatError:
    """The error for a response whose status is not a success. Reads and closes it."""
    status, seconds = response.status_code, retry_seconds(response)
    report = parse_report(_read_body(response, waiter))
    detail = f"the model's server returned {status}{report}"
    if status == 413 or report.code in _TOO_LONG or (status not in _NEVER_TOO_LONG and _is_too_long(report)):
        return _too_long(report, detail)
    if status == 429 and not _QUOTA & {report.code, report.type}:
        return TooManyRequests(BUSY, detail=detail, retry_after=seconds)
    return UpstreamUnavailable(detail=detail) if status in _UNAVAILABLE else UpstreamError(detail=detail)


def _is_too_long(report: Report) -> bool:
    return bool(_TOO_LONG & {report.code, report.type} or _TOO_LONG_TEXT.search(report.text))


def _too_long(report: Report, detail: str) -> ContextTooLong:
    problem = ContextTooLong(detail=detail)
    problem.tokens = min((int(number) for number in _TOKENS.findall(report.text)), default=None)
    return problem


def _read_body(response: Response, waiter: Waiter) -> Any:
    """The JSON; None if it is none, too large or too slow."""
    try:
        return json.loads(http.read_body(response, monotonic() + BODY_SECONDS, waiter, BODY_MAX_BYTES))
    except (UpstreamFailure, ValueError, RecursionError):
        return None


def parse_report(content: Any) -> Report:
    """The first code and the first type that occur, and all messages."""
    objects = list(_objects(content))
    messages = [text for item in objects for text in _messages(item)]
    return Report(_first(objects, ("code", "error_code")), _first(objects, ("type",)), "\n".join(messages))


def _objects(content: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """The error's object, the inner one first. Gateways wrap the error of the server behind them."""
    if isinstance(content, list) and depth < 4:
        for item in content[:10]:
            yield from _objects(item, depth + 1)
    if isinstance(content, dict) and depth < 4:
        for name in ("error", "errors", "detail", "metadata", "choices"):
            yield from _objects(content.get(name), depth + 1)
        yield content


def _messages(item: dict[str, Any]) -> Iterator[str]:
    for name in ("message", "error", "detail", "raw", "msg", "error_msg"):
        if isinstance(text := item.get(name), str):
            yield text


def _first(objects: list[dict[str, Any]], names: tuple[str, ...]) -> str:
    """The first value that is an identifier or a number; a text might be the user's."""
    values = (str(item[name]) for item in objects for name in names if isinstance(item.get(name), str | int))
    return next((value for value in values if _LOGGABLE.fullmatch(value)), "")


def retry_seconds(response: Response) -> int:
    """Seconds to wait, from Retry-After as a number or a date, or from Azure's and OpenAI's `retry-after-ms`."""
    headers = response.headers
    milliseconds, text = _number(headers.get("retry-after-ms", "")), headers.get("Retry-After", "")
    seconds = _number(text) if milliseconds is None else milliseconds / 1000
    if seconds is None and (moment := _moment(text)) is not None:
        seconds = moment - time()
    return RETRY_SECONDS if seconds is None or seconds <= 0 else min(ceil(seconds), MAX_RETRY_SECONDS)


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text.strip()) else None


def _moment(text: str) -> float | None:
    """An HTTP date in seconds since the epoch."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
