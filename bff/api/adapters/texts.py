"""Text blocks, for protocols that mark the start and the end of each text."""

from collections.abc import Callable
from typing import Any, NamedTuple

from bff.api.adapters.base import responses


class TextFrames(NamedTuple):
    """Functions that build an event's `data`. They take the number of the text block in its reply, counted from 1."""

    start: Callable[[int], str]
    delta: Callable[[int, str], str]
    end: Callable[[int], str]


class Texts:
    """The text blocks of one reply. A tool event ends the open block; the next text starts a new one."""

    def __init__(self, frames: TextFrames, text_sent: bool) -> None:
        self.text_sent = text_sent
        self._frames = frames
        self._number = 0
        self._open = False

    def progress(self, content: dict[str, Any]) -> list[str]:
        text = content.get("text")
        return self._delta(text) if isinstance(text, str) and text else []

    def end(self) -> list[str]:
        """Ends the open block, if there is one."""
        was_open, self._open = self._open, False
        return [self._frames.end(self._number)] if was_open else []

    def finish(self, content: dict[str, Any]) -> list[str]:
        """Ends the open block; sends the texts of the `complete` or `stopped` event if none was streamed."""
        unsent = [] if self.text_sent else responses(content)
        return self.end() + [data for text in unsent for data in (*self._delta(text), *self.end())]

    def _delta(self, text: str) -> list[str]:
        start = [] if self._open else [self._start()]
        return [*start, self._frames.delta(self._number, text)]

    def _start(self) -> str:
        self._open = self.text_sent = True
        self._number += 1
        return self._frames.start(self._number)
