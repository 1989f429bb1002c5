"""The agent: sends the request, again where that may help."""

from collections.abc import Generator, Mapping, Sequence
from time import monotonic
from typing import Any, Final

from bff.auth.identity import Identity
from bff.engine.agents.base import NO_OPTIONS, EndedPieces
from bff.engine.agents.openai import refusals
from bff.engine.agents.openai.completion import read_reply
from bff.engine.agents.openai.request import request_body, with_fewer_turns
from bff.errors import ContextTooLong, TooManyRequests, detached
from bff.http.waiting import Waiter
from bff.http.waiting.background import in_background
from bff.upstream import http
from bff.upstream.agents import CONTINUE_ASSISTANT, RESPONSE_FORMAT, TOOL_MESSAGES
from bff.upstream.http import ByteStream, Response, Session
from bff.upstream.messages import ChatMessage
from bff.upstream.services import Service, Timeouts

RETRIES: Final = 2
"""After a 429 whose Retry-After is at most MAX_RETRY_AFTER seconds."""
MAX_RETRY_AFTER: Final = 10


class OpenAI:
    id = "openai"
    name = "OpenAI"
    repeatable = True
    features = frozenset({RESPONSE_FORMAT, TOOL_MESSAGES, CONTINUE_ASSISTANT})

    def __init__(self, service: Service, session: Session, timeouts: Timeouts, model: str, max_event_bytes: int) -> None:
        """`timeouts.silence`: of the server, before and after its first byte."""
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
    ) -> EndedPieces:
        """`options`: further fields of the request."""
        try:
            return (yield from self._reply(history, options, waiter))
        except ContextTooLong as problem:
            shorter = None if problem.started else with_fewer_turns(history, problem.tokens)
            if shorter is None:
                raise
        return (yield from self._reply(shorter, options, waiter))

    def _reply(self, history: Sequence[ChatMessage], options: Mapping[str, Any], waiter: Waiter) -> EndedPieces:
        response = yield from self._open(request_body(self._model, history, options), waiter)
        source = ByteStream(response, self._timeouts.silence)
        try:
            return (yield from read_reply(source, waiter, self._max_event_bytes, tools_offered=bool(options.get("tools"))))
        finally:
            source.close()

    def _open(self, body: dict[str, Any], waiter: Waiter) -> Generator[None, None, Response]:
        retries = RETRIES
        while True:
            try:
                # In the background, as many servers send not even a status before the first token.
                return (yield from in_background(lambda call_waiter: self._send(body, call_waiter), waiter, Response.close))
            except TooManyRequests as problem:
                seconds = problem.retry_after or 0
                if not retries or seconds > MAX_RETRY_AFTER:
                    raise
            retries -= 1
            yield from waiter.sleep(seconds)

    def _send(self, body: dict[str, Any], waiter: Waiter) -> Response:
        """Raises the error that the server responds with."""
        authorization = {"Authorization": f"Bearer {self._service.key}"} if self._service.key else {}
        response = http.send(
            self._session,
            "POST",
            self._service.url + "/chat/completions",
            headers={"Accept": "text/event-stream", **authorization},
            connect=self._timeouts.connect,
            deadline=monotonic() + self._timeouts.silence,
            body=body,
            waiter=waiter,
        )
        if not 200 <= response.status_code < 300:
            raise detached(refusals.error_of(response, waiter))
        return response
