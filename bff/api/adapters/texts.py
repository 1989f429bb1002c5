"""Text, for protocols that want its beginning and its end said."""

from collections.abc import Callable
from typing import Any, NamedTuple

from bff.api.adapters.base import responses


class TextFrames(NamedTuple):
    """Each from the number of a text in its answer, counted from 1."""

    start: Callable[[int], str]
    delta: Callable[[int, str], str]
    end: Callable[[int], str]


class Texts:
    """The texts of one answer: what interrupts one, such as a tool, ends it, and a new one begins after it."""

    def __init__(self, marks: TextFrames, text_sent: bool) -> None:
        self.text_sent = text_sent
        self._marks = marks
        self._number = 0
        self._open = False

    def piece(self, content: dict[str, Any]) -> list[str]:
        """Of a `progress` event."""
        text = content.get("text")
        return self._delta(text) if isinstance(text, str) and text else []

    def end(self) -> list[str]:
        was_open, self._open = self._open, False
        return [self._marks.end(self._number)] if was_open else []

    def rest(self, content: dict[str, Any]) -> list[str]:
        """Of a `complete` or `stopped` event: all the text where none came in pieces. Ends it."""
        untold = [] if self.text_sent else responses(content)
        return self.end() + [said for text in untold for said in (*self._delta(text), *self.end())]

    def _delta(self, text: str) -> list[str]:
        start = [] if self._open else [self._start()]
        return [*start, self._marks.delta(self._number, text)]

    def _start(self) -> str:
        self._open = self.text_sent = True
        self._number += 1
        return self._marks.start(self._number)
