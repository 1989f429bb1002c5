"""Replies through any OpenAI-compatible `/chat/completions`, streamed.

https://platform.openai.com/docs/api-reference/chat-streaming: unnamed events, each a JSON object with `choices`, and at the
end the text `[DONE]`. Compatible servers leave out one or the other, and add what nobody asked for.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from time import monotonic
from typing import Any, Final

from bff.auth.identity import Identity
from bff.errors import AnswerIncomplete, ChatError, TooManyRequests, UpstreamError, UpstreamUnavailable, detached
from bff.http.sse import Event
from bff.http.waiting import Waiter
from bff.http.waiting.background import in_background
from bff.upstream import http
from bff.upstream.events import parsed_object
from bff.upstream.http import EventSource, Response, Session
from bff.upstream.messages import ChatMessage
from bff.upstream.services import Service, Timeouts

RETRIES: Final = 2
"""Of a request that was answered with 429, when its Retry-After is no longer than RETRY_AFTER_MOST seconds."""
RETRY_AFTER_MOST: Final = 10
DONE: Final = "[DONE]"
BUSY: Final = "The assistant is busy. Please try again in a moment."
WITHHELD: Final = "The assistant may not answer this."


class OpenAI:
    id = "openai"
    name = "OpenAI"
    repeatable = True

    def __init__(self, service: Service, session: Session, timeouts: Timeouts, model: str, max_event_bytes: int) -> None:
        self._service = service
        self._session = session
        self._timeouts = timeouts
        self._model = model
        self._max_event_bytes = max_event_bytes

    @property
    def description(self) -> str:
        return f"Replies with the language model {self._model}."

    def stream(self, history: Sequence[ChatMessage], identity: Identity, waiter: Waiter) -> Generator[str | None]:
        messages = [{"role": said.role, "content": said.content} for said in history]
        source = yield from self._open({"model": self._model, "messages": messages, "stream": True}, waiter)
        try:
            yield from _pieces(source.events(waiter))
        finally:
            source.close()

    def _open(self, body: dict[str, Any], waiter: Waiter) -> Generator[None, None, EventSource]:
        retries = RETRIES
        while True:
            # Many say nothing at all, not even a status, before they have the reply's first word.
            response = yield from in_background(lambda place: self._ask(body, place), waiter, Response.close)
            if response.status_code == 200:
                return EventSource(response, self._timeouts.silence, self._max_event_bytes)
            problem = _refusal(response)
            response.close()
            seconds = problem.retry_after or 0
            if not isinstance(problem, TooManyRequests) or not retries or seconds > RETRY_AFTER_MOST:
                raise detached(problem)
            retries -= 1
            yield from waiter.sleep(seconds)

    def _ask(self, body: dict[str, Any], waiter: Waiter) -> Response:
        key = {"Authorization": f"Bearer {self._service.key}"} if self._service.key else {}
        return http.send(
            self._session,
            "POST",
            self._service.url + "/chat/completions",
            headers={"Accept": "text/event-stream", **key},
            connect=self._timeouts.connect,
            deadline=monotonic() + self._timeouts.silence,
            body=body,
            waiter=waiter,
        )


def _refusal(response: Response) -> ChatError:
    if response.status_code == 429:
        return TooManyRequests(BUSY, retry_after=http.retry_after(response, default=2))
    if response.status_code in {502, 503, 504}:
        return UpstreamUnavailable(detail=f"the model's server answered {response.status_code}")
    return UpstreamError(detail=f"the model's server answered {response.status_code}")


def _pieces(events: Iterable[Event | None]) -> Iterator[str | None]:
    """Raises UpstreamError where the server says that it failed, AnswerIncomplete where it ends without an end."""
    finished = False
    for event in events:
        if event is None:
            yield None
            continue
        if event.data.strip() == DONE:
            return
        chunk = parsed_object(event.data)
        if event.event == "error" or chunk.get("error"):
            raise UpstreamError(detail=f"the model's stream says error {_kind(chunk)}")
        text, reason = _first_choice(chunk)
        if text:
            yield text
        if reason == "content_filter":
            raise UpstreamError(WITHHELD, detail="finish_reason content_filter")
        finished = finished or reason != ""
    if not finished:
        raise AnswerIncomplete(detail="the model's stream ended without an end")


def _first_choice(chunk: dict[str, Any]) -> tuple[str, str]:
    """Its text and why it finished, "" where it has none: a usage chunk, a tool call, a reply nobody asked for."""
    choices = chunk.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        if isinstance(choice, dict) and choice.get("index", 0) == 0:
            delta = choice.get("delta")
            said = (delta.get("content") or delta.get("refusal")) if isinstance(delta, dict) else None
            reason = choice.get("finish_reason")
            return said if isinstance(said, str) else "", reason if isinstance(reason, str) else ""
    return "", ""


def _kind(chunk: dict[str, Any]) -> str:
    """What it calls its error; its sentence may repeat the user's."""
    error = chunk.get("error")
    kind = (error.get("code") or error.get("type")) if isinstance(error, dict) else None
    return str(kind)[:64]
