"""Client of the engine, the AI service: streamed and complete replies, history, preferences and voice recordings.

The broker's worker requests the streams. The API requests everything else itself.
"""

from collections.abc import Mapping
from contextlib import closing
from math import ceil
from time import monotonic
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from bff import errors
from bff.auth.identity import Identity
from bff.errors import BY_CODE, ChatError, UpstreamError, UpstreamFailure
from bff.http import tracing, waiting
from bff.http.waiting import Waiter
from bff.ops import metrics
from bff.upstream import events, http, recordings
from bff.upstream.http import ByteStream, EventSource, Response, Session
from bff.upstream.recordings import Recording
from bff.upstream.services import CHECK_SECONDS, COALESCE_SECONDS, Service, Timeouts

HISTORY_MAX_BYTES: Final = 4 * 1024 * 1024
"""For one page, some 80 KiB per turn. Parsing that much JSON takes some 20 ms, during which no stream proceeds."""
RETRY_SECONDS: Final = 5
"""Default `retry_after` of a 429."""


class Turns(NamedTuple):
    """A page of a user's history."""

    entries: list[dict[str, Any]]
    total: int


class EngineClient:
    """The engine's HTTP API.

    Unless noted otherwise, methods raise an UpstreamFailure, InvalidRequest or TooManyRequests, as the engine responds, and
    the reason if `waiter` is cancelled.
    """

    def __init__(
        self, service: Service, session: Session, timeouts: Timeouts, max_event_bytes: int, *, is_bundled: bool = False
    ) -> None:
        """`is_bundled`: its error codes are those of errors.py."""
        self._is_bundled = is_bundled
        self._service = service
        self._session = session
        self._timeouts = timeouts
        self._max_event_bytes = max_event_bytes

    def stream(self, content: Mapping[str, Any], waiter: Waiter) -> EventSource:
        """Opens the stream of a reply. The engine must respond by `waiter.wake_at`, if that is before the usual deadline.

        Raises an UpstreamFailure, and the reason if `waiter` is cancelled.
        """
        deadline = min(monotonic() + self._timeouts.open, waiter.wake_at)
        with metrics.count_failures("engine"):
            response = self._send("POST", "/api/v1/chat/stream", deadline, waiter, accept="text/event-stream", body=content)
            if response.status_code != 200:
                response.close()
                raise UpstreamError.from_status("engine", response.status_code)
            return EventSource(response, self._timeouts.silence, self._max_event_bytes, COALESCE_SECONDS)

    def keep_stopped(self, content: Mapping[str, Any], text: str) -> str:
        """Stores `text` as the stopped reply to `content`, in the bundled engine. Returns the reply's id.

        Raises an UpstreamFailure.
        """
        with closing(waiting.new_waiter()) as waiter:
            stored = self._request("POST", "/api/v1/chat/stopped", waiter, body={**content, "text": text})
        return str(stored.get("message_id", ""))

    def end_response(self, content: Mapping[str, Any], status: str, error_code: str) -> None:
        """Records in the bundled engine how the stored response of `content` ended. Raises an UpstreamFailure, NotFound."""
        with closing(waiting.new_waiter()) as waiter:
            body = {**content, "status": status, "error_code": error_code}
            self._request("POST", "/api/v1/chat/ended", waiter, body=body)

    def chat(self, content: Mapping[str, Any], waiter: Waiter) -> dict[str, Any]:
        """A complete reply."""
        reply = self._request("POST", "/api/v1/chat", waiter, self._max_event_bytes, body=content)
        if not events.has_responses(reply):
            raise UpstreamError(detail="the engine's reply has no responses")
        return reply

    def history(self, who: Identity, limit: int, offset: int, waiter: Waiter) -> Turns:
        """Turns, oldest first, from `offset`; none for a user that the engine does not know."""
        params = {"limit": str(limit), "offset": str(offset)}
        try:
            content = self._request("GET", _user_path(who, "history"), waiter, HISTORY_MAX_BYTES, params=params)
        except errors.NotFound:
            return Turns([], 0)
        entries, total = content.get("entries"), content.get("total_count")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries) or type(total) is not int:
            raise UpstreamError(detail="the engine's history is not valid")
        return Turns(entries[:limit], max(0, total))

    def newest(self, who: Identity, limit: int, offset: int, waiter: Waiter) -> Turns:
        """Turns, newest first, `offset` counted from the end. Takes two requests: the engine counts from the start."""
        first = self.history(who, limit, 0, waiter)
        stop = first.total - offset
        start = max(0, stop - limit)
        if stop <= 0 or first.total <= limit:
            return Turns(first.entries[start : max(0, stop)][::-1], first.total)
        last = self.history(who, stop - start, start, waiter)
        return Turns(last.entries[::-1], last.total)

    def preferences(self, who: Identity, waiter: Waiter) -> dict[str, Any]:
        try:
            return self.known_preferences(who, waiter)
        except errors.NotFound:
            return {}

    def known_preferences(self, who: Identity, waiter: Waiter) -> dict[str, Any]:
        """Raises NotFound, too, for a user that the engine does not know."""
        return self._request("GET", _user_path(who, "preferences"), waiter)

    def update_preferences(self, who: Identity, changes: Mapping[str, Any], waiter: Waiter) -> dict[str, Any]:
        """Returns all preferences after `changes`."""
        if not changes:
            return self.preferences(who, waiter)
        return self._request("PUT", _user_path(who, "preferences"), waiter, body=changes)

    def recording(self, url: str, who: Identity, waiter: Waiter) -> tuple[Recording, str]:
        """Opens a voice recording; returns it with its file name. Raises NotFound, too, and InvalidRequest for another URL."""
        path, file = recordings.address(url, self._service.url, who)
        deadline = monotonic() + self._timeouts.open
        with metrics.count_failures("engine"):
            response = self._check_status(self._send("GET", path, deadline, waiter, accept="*/*"), deadline, waiter)
        source = ByteStream(response, self._timeouts.silence)
        return Recording(source, monotonic() + self._timeouts.engine, waiter), file

    def _request(
        self, method: str, path: str, waiter: Waiter, max_bytes: int = http.JSON_MAX_BYTES, **parts: Any
    ) -> dict[str, Any]:
        """Returns the JSON response. Raises NotFound, too, for a GET."""
        deadline = monotonic() + self._timeouts.engine
        with metrics.count_failures("engine"):
            response = self._check_status(self._send(method, path, deadline, waiter, **parts), deadline, waiter)
            return http.read_json(response, deadline, waiter, max_bytes)

    def check(self) -> None:
        """Raises an UpstreamFailure if the engine is unreachable. Any status will do: engines have no common health path."""
        deadline = monotonic() + CHECK_SECONDS
        with closing(waiting.new_waiter()) as waiter:
            self._send("GET", "/health", deadline, waiter).close()

    def _send(
        self, method: str, path: str, deadline: float, waiter: Waiter, accept: str = "application/json", **parts: Any
    ) -> Response:
        return http.send(
            self._session,
            method,
            self._service.url + path,
            headers={"Authorization": f"Bearer {self._service.key}", "Accept": accept, **tracing.headers()},
            connect=self._timeouts.connect,
            deadline=deadline,
            waiter=waiter,
            **parts,
        )

    def _check_status(self, response: Response, deadline: float, waiter: Waiter) -> Response:
        if response.status_code != 200:
            raise (_bundled_error if self._is_bundled else _to_chat_error)(response, deadline, waiter)
        return response


def _user_path(who: Identity, leaf: str) -> str:
    """A user id may contain any character, so every segment is percent-encoded."""
    return f"/api/v1/orgs/{quote(who.org, safe='')}/users/{quote(who.user_id, safe='')}/{leaf}"


def _to_chat_error(response: Response, deadline: float, waiter: Waiter) -> ChatError:
    """The error for a response other than 200. The engine's own error text never reaches the client."""
    status = response.status_code
    if status == 429:
        return errors.TooManyRequests(retry_after=_retry_after(response, deadline, waiter))
    response.close()
    if status == 400:
        return errors.InvalidRequest(detail="the engine responded with 400")
    # A 404 to a GET means that there is no such resource; to other methods, that the engine's URL is wrong.
    if status == 404 and response.request.method == "GET":
        return errors.NotFound(detail="the engine responded with 404")
    return UpstreamError.from_status("engine", status)


def _bundled_error(response: Response, deadline: float, waiter: Waiter) -> ChatError:
    """As `_to_chat_error`, for the bundled engine, whose error codes our clients know."""
    seconds = http.retry_after(response, default=0)
    kind = BY_CODE.get(str(http.read_json(response, deadline, waiter).get("code")), UpstreamError)
    return kind(detail=f"the engine responded with {response.status_code}", retry_after=seconds or None)


def _retry_after(response: Response, deadline: float, waiter: Waiter) -> int:
    """Seconds, from the header or the body's `retry_after_ms`."""
    if seconds := http.retry_after(response, default=0):
        response.close()
        return seconds
    try:
        milliseconds = http.read_json(response, deadline, waiter).get("retry_after_ms")
    except UpstreamFailure:
        milliseconds = None
    return max(1, min(ceil(milliseconds / 1000), 3600)) if type(milliseconds) is int else RETRY_SECONDS
