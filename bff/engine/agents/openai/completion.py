"""Turns the objects of a chat completion into the pieces of a reply, and decides whether the reply is whole."""

from collections.abc import Iterator, Mapping
from math import inf
from time import monotonic
from typing import Any, Final

from bff.engine.agents.base import EndedPieces, Ending, Piece
from bff.engine.agents.openai import finish, refusals
from bff.engine.agents.openai.frames import Frame, FrameDecoder
from bff.engine.agents.openai.text import texts_in
from bff.engine.agents.openai.thinking import Thinking
from bff.errors import AnswerIncomplete, UpstreamError, UpstreamTimeout, UpstreamUnavailable, detached
from bff.http.waiting import Waiter
from bff.upstream.events import reasoning
from bff.upstream.http import ByteStream
from bff.upstream.output import usage_of

FINISH_SECONDS: Final = 2.0
"""How long the stream is read after a finish_reason, for `usage` and `[DONE]`. Some servers hold the connection open."""


def read_reply(source: ByteStream, waiter: Waiter, max_event_bytes: int, *, tools_offered: bool) -> EndedPieces:
    """The pieces of the reply; None after each read. Once it is finished, a lost or a silent connection is its end.

    Raises AnswerIncomplete if it ends without a finish_reason or `[DONE]`, UpstreamError and ContextTooLong if the server
    reports an error or sends something unknown, UpstreamUnavailable, UpstreamTimeout.
    """
    frames, completion = FrameDecoder(max_event_bytes), Completion(tools_offered=tools_offered)
    try:
        for chunk in source.chunks(waiter):
            yield from completion.feed(frames.feed(chunk))
            if completion.done:
                break
            source.deadline = completion.deadline
            yield None
        else:
            yield from completion.feed(frames.end(finished=completion.finished))
    except (UpstreamUnavailable, UpstreamTimeout):
        if not completion.finished:
            raise
    return (yield from completion.end())


class Completion:
    def __init__(self, *, tools_offered: bool) -> None:
        self._tools_offered = tools_offered
        self._thinking = Thinking()
        self._started = False
        """Whether there was text."""
        self._has_output = False
        """Whether there was text or reasoning."""
        self._truncated = False
        self._usage: Mapping[str, int] | None = None
        self.finished = False
        """Whether the last output has a known finish_reason."""
        self.done = False
        """Whether `[DONE]` was received: the rest is ignored."""
        self.deadline = inf
        """The moment (monotonic) at which a finished reply ends even without `[DONE]`."""

    def feed(self, frames: Iterator[Frame]) -> Iterator[Piece]:
        for frame in frames:
            if frame.is_done:
                self.done = True
                return
            yield from self._read(frame)

    def _read(self, frame: Frame) -> Iterator[Piece]:
        content = frame.content
        if frame.is_error or refusals.is_error(content):
            raise detached(refusals.error_in(content, started=self._has_output))
        self._usage = usage_of(content) or self._usage
        if (choice := _first_choice(content)) is not None:
            yield from self._pieces(choice)
            self._finish(finish.reason_in(choice))

    def _pieces(self, choice: dict[str, Any]) -> Iterator[Piece]:
        text, thoughts = texts_in(choice, started=self._started)
        if text or thoughts:
            self.finished, self.deadline = False, inf  # Some servers send a finish_reason too early.
            self._has_output = True
        self._started = self._started or text != ""
        shown = self._thinking.feed(text)
        if thoughts or shown.reasoning:
            yield reasoning(thoughts + shown.reasoning)
        if shown.text:
            yield shown.text

    def _finish(self, reason: str) -> None:
        if reason:
            truncated = finish.is_truncated(reason, tools_offered=self._tools_offered)
            self._truncated = self._truncated or truncated
            if not self.finished:
                self.finished, self.deadline = True, monotonic() + FINISH_SECONDS

    def end(self) -> EndedPieces:
        """Raises AnswerIncomplete."""
        if not self.finished and not self.done:
            raise AnswerIncomplete(detail="the model's response ended without finish_reason or [DONE]")
        shown = self._thinking.end()
        if shown.reasoning:
            yield reasoning(shown.reasoning)
        if shown.text:
            yield shown.text
        return Ending(self._truncated, self._usage)


def _first_choice(content: dict[str, Any]) -> dict[str, Any] | None:
    """The choice 0; None where there is none, as in a chunk that has only `usage`. Raises UpstreamError for another form."""
    choices = content.get("choices") or []
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise UpstreamError(detail="the model's choices have an unknown form")
    return next((choice for choice in choices if choice.get("index") in {None, 0}), None)
