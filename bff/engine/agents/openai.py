"""An agent that streams from an OpenAI-compatible `/chat/completions`.

https://platform.openai.com/docs/api-reference/chat-streaming: unnamed events, each a JSON object with `choices`, and
finally the text `[DONE]`. Compatible servers leave out some of this, and add other events.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, Final

from bff.auth.identity import Identity
from bff.engine.agents.base import NO_OPTIONS
from bff.errors import AnswerIncomplete, ChatError, TooManyRequests, UpstreamError, UpstreamUnavailable, detached
from bff.http.sse import Event
from bff.http.waiting import Waiter
from bff.http.waiting.background import in_background
from bff.upstream import http
from bff.upstream.agents import CONTINUE_ASSISTANT, RESPONSE_FORMAT, TOOL_MESSAGES
from bff.upstream.events import parse_object
from bff.upstream.http import EventSource, Response, Session
from bff.upstream.messages import ChatMessage
from bff.upstream.services import Service, Timeouts

RETRIES: Final = 2
"""After a 429 whose Retry-After is at most MAX_RETRY_AFTER seconds."""
MAX_RETRY_AFTER: Final = 10
DONE: Final = "[DONE]"
BUSY: Final = "The assistant is busy. Please try again in a moment."
WITHHELD: Final = "The assistant may not answer this."


class OpenAI:
    id = "openai"
    name = "OpenAI"
    repeatable = True
    features = frozenset({RESPONSE_FORMAT, TOOL_MESSAGES, CONTINUE_ASSISTANT})

    def __init__(self, service: Service, session: Session, timeouts: Timeouts, model: str, max_event_bytes: int) -> None:
        self._service = service
        self._session = session
        self._timeouts = timeouts
        self._model = model
        self._max_event_bytes = max_event_bytes

    @property
    def description(self) -> str:
        return f"Replies with the language model {self._model}."

    def stream(
        self, history: Sequence[ChatMessage], identity: Identity, waiter: Waiter, options: Mapping[str, Any] = NO_OPTIONS
    ) -> Generator[str | None]:
        messages = [message.as_json() for message in history]
        source = yield from self._open({**options, "model": self._model, "messages": messages, "stream": True}, waiter)
        try:
            yield from _pieces(source.events(waiter))
        finally:
            source.close()

    def _open(self, body: dict[str, Any], waiter: Waiter) -> Generator[None, None, EventSource]:
        retries = RETRIES
        while True:
            # In the background, as many servers send not even a status before the first token.
            response = yield from in_background(lambda call_waiter: self._send(body, call_waiter), waiter, Response.close)
            if response.status_code == 200:
                return EventSource(response, self._timeouts.silence, self._max_event_bytes)
            problem = _problem(response)
            response.close()
            seconds = problem.retry_after or 0
            if not isinstance(problem, TooManyRequests) or not retries or seconds > MAX_RETRY_AFTER:
                raise detached(problem)
            retries -= 1
            yield from waiter.sleep(seconds)

    def _send(self, body: dict[str, Any], waiter: Waiter) -> Response:
        authorization = {"Authorization": f"Bearer {self._service.key}"} if self._service.key else {}
        return http.send(
            self._session,
            "POST",
            self._service.url + "/chat/completions",
            headers={"Accept": "text/event-stream", **authorization},
            connect=self._timeouts.connect,
            deadline=monotonic() + self._timeouts.silence,
            body=body,
            waiter=waiter,
        )


def _problem(response: Response) -> ChatError:
    if response.status_code == 429:
        return TooManyRequests(BUSY, retry_after=http.retry_after(response, default=2))
    if response.status_code in {502, 503, 504}:
        return UpstreamUnavailable(detail=f"the model's server returned {response.status_code}")
    return UpstreamError(detail=f"the model's server returned {response.status_code}")


def _pieces(events: Iterable[Event | None]) -> Iterator[str | None]:
    """Raises UpstreamError after an error event, AnswerIncomplete if the stream ends without a finish_reason or [DONE]."""
    finished = False
    for event in events:
        if event is None:
            yield None
            continue
        if event.data.strip() == DONE:
            return
        chunk = parse_object(event.data)
        if event.event == "error" or chunk.get("error"):
            raise UpstreamError(detail=f"the model's stream has error {_error_kind(chunk)}")
        text, reason = _first_choice(chunk)
        if text:
            yield text
        if reason == "content_filter":
            raise UpstreamError(WITHHELD, detail="finish_reason content_filter")
        finished = finished or reason != ""
    if not finished:
        raise AnswerIncomplete(detail="the model's stream ended without finish_reason or [DONE]")


def _first_choice(chunk: dict[str, Any]) -> tuple[str, str]:
    """The text and finish_reason of the choice 0, "" where it has none, as in usage chunks and tool calls."""
    choices = chunk.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        if isinstance(choice, dict) and choice.get("index", 0) == 0:
            delta = choice.get("delta")
            text = (delta.get("content") or delta.get("refusal")) if isinstance(delta, dict) else None
            reason = choice.get("finish_reason")
            return text if isinstance(text, str) else "", reason if isinstance(reason, str) else ""
    return "", ""


def _error_kind(chunk: dict[str, Any]) -> str:
    """The error's code or type. Its message may quote the user's, so it is not logged."""
    error = chunk.get("error")
    kind = (error.get("code") or error.get("type")) if isinstance(error, dict) else None
    return str(kind)[:64]
