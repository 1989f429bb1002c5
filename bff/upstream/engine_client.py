"""The AI service that answers, streaming or not, and keeps history, preferences and spoken answers.

The broker asks it for streams; everything else the browser's doors ask it themselves, broker or no broker.
"""

from collections.abc import Mapping
from contextlib import closing
from math import ceil
from time import monotonic
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from bff import errors
from bff.auth.identity import Identity
from bff.errors import ChatError, UpstreamError, UpstreamFailure
from bff.http import tracing, waiting
from bff.http.waiting import Waiter
from bff.ops import metrics
from bff.upstream import events, http, recordings
from bff.upstream.http import ByteStream, EventSource, Response, Session
from bff.upstream.recordings import Recording
from bff.upstream.services import CHECK_SECONDS, JOIN_SECONDS, Service, Timeouts

HISTORY_MAX_BYTES: Final = 4 * 1024 * 1024
"""Of one page, some 80 KiB a turn. Reading that much JSON takes some 20 ms, in which no stream moves."""
BUSY_SECONDS: Final = 5


class Turns(NamedTuple):
    """A page of a user's history."""

    entries: list[dict[str, Any]]
    total: int


class EngineClient:
    """Every path segment is encoded here: a user id may hold anything a URL is made of."""

    def __init__(self, service: Service, session: Session, timeouts: Timeouts, max_event_bytes: int) -> None:
        self._service = service
        self._session = session
        self._timeouts = timeouts
        self._max_event_bytes = max_event_bytes

    def stream(self, content: Mapping[str, Any], waiter: Waiter) -> EventSource:
        """Raises an UpstreamFailure, and whatever ends `waiter` while the engine has not answered.

        The engine has until `waiter.due` to answer, if that comes first.
        """
        deadline = min(monotonic() + self._timeouts.open, waiter.wake_at)
        with metrics.failures("engine"):
            response = self._send("POST", "/api/v1/chat/stream", deadline, waiter, accept="text/event-stream", body=content)
            if response.status_code != 200:
                response.close()
                raise UpstreamError(detail=f"the engine answered {response.status_code}")
            return EventSource(response, self._timeouts.silence, self._max_event_bytes, JOIN_SECONDS)

    def keep_stopped(self, content: Mapping[str, Any], text: str) -> str:
        """Stores `text` as the reply to what the bundled engine was asked with `content`; its id. Raises an UpstreamFailure."""
        with closing(waiting.new_waiter()) as waiter:
            answer = self._ask("POST", "/api/v1/chat/stopped", waiter, body={**content, "text": text})
        return str(answer.get("message_id", ""))

    # What follows raises an UpstreamFailure, InvalidRequest or TooManyRequests where the engine says so, and whatever
    # ends `waiter`.

    def chat(self, content: Mapping[str, Any], waiter: Waiter) -> dict[str, Any]:
        """One whole answer."""
        answer = self._ask("POST", "/api/v1/chat", waiter, self._max_event_bytes, body=content)
        if not events.has_responses(answer):
            raise UpstreamError(detail="an answer without responses")
        return answer

    def history(self, who: Identity, limit: int, offset: int, waiter: Waiter) -> Turns:
        """Oldest first, after the first `offset` ones. Nothing of a user whom the engine does not know."""
        page = {"limit": str(limit), "offset": str(offset)}
        try:
            content = self._ask("GET", _path(who, "history"), waiter, HISTORY_MAX_BYTES, params=page)
        except errors.NotFound:
            return Turns([], 0)
        entries, total = content.get("entries"), content.get("total_count")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries) or type(total) is not int:
            raise UpstreamError(detail="a history that is none")
        return Turns(entries[:limit], max(0, total))

    def newest(self, who: Identity, limit: int, offset: int, waiter: Waiter) -> Turns:
        """Newest first, before the last `offset` ones. The engine counts from the other end, so it is asked twice."""
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
        """Raises NotFound, too, for a user whom the engine does not know."""
        return self._ask("GET", _path(who, "preferences"), waiter)

    def prefer(self, who: Identity, changes: Mapping[str, Any], waiter: Waiter) -> dict[str, Any]:
        """All preferences after `changes`."""
        if not changes:
            return self.preferences(who, waiter)
        return self._ask("PUT", _path(who, "preferences"), waiter, body=changes)

    def recording(self, url: str, who: Identity, waiter: Waiter) -> tuple[Recording, str]:
        """A spoken answer and its file's name. Raises NotFound, too, and InvalidRequest for a URL that is none of them."""
        path, file = recordings.address(url, self._service.url, who)
        deadline = monotonic() + self._timeouts.open
        with metrics.failures("engine"):
            response = self._checked(self._send("GET", path, deadline, waiter, accept="*/*"), deadline, waiter)
        source = ByteStream(response, self._timeouts.silence)
        return Recording(source, monotonic() + self._timeouts.engine, waiter), file

    def _ask(self, method: str, path: str, waiter: Waiter, most: int = http.JSON_MAX_BYTES, **parts: Any) -> dict[str, Any]:
        """Raises NotFound, too, for a GET."""
        deadline = monotonic() + self._timeouts.engine
        with metrics.failures("engine"):
            response = self._checked(self._send(method, path, deadline, waiter, **parts), deadline, waiter)
            return http.read_json(response, deadline, waiter, most)

    def check(self) -> None:
        """Raises an UpstreamFailure when nobody is there. Whatever is answered, somebody is: no two engines agree on a path."""
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

    def _checked(self, response: Response, deadline: float, waiter: Waiter) -> Response:
        if response.status_code != 200:
            raise _refusal(response, deadline, waiter)
        return response


def _path(who: Identity, leaf: str) -> str:
    return f"/api/v1/orgs/{quote(who.org, safe='')}/users/{quote(who.user_id, safe='')}/{leaf}"


def _refusal(response: Response, deadline: float, waiter: Waiter) -> ChatError:
    """What the engine's status means for the one who asked; the engine's own words stay here."""
    status = response.status_code
    if status == 429:
        return errors.TooManyRequests(retry_after=_retry_after(response, deadline, waiter))
    response.close()
    if status == 400:
        return errors.InvalidRequest(detail="the engine answered 400")
    # Of what is read it means that there is none; what is asked for or written was sent to a wrong address.
    kind = errors.NotFound if status == 404 and response.request.method == "GET" else UpstreamError
    return kind(detail=f"the engine answered {status}")


def _retry_after(response: Response, deadline: float, waiter: Waiter) -> int:
    """Seconds, from the header, or from the body's `retry_after_ms`."""
    if seconds := http.retry_after(response, default=0):
        response.close()
        return seconds
    try:
        milliseconds = http.read_json(response, deadline, waiter).get("retry_after_ms")
    except UpstreamFailure:
        milliseconds = None
    return max(1, min(ceil(milliseconds / 1000), 3600)) if type(milliseconds) is int else BUSY_SECONDS
