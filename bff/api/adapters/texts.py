"""Text and reasoning blocks, for protocols that mark the start and the end of each."""

from collections.abc import Callable
from typing import Any, NamedTuple

from bff.api.adapters.base import responses


class BlockFrames(NamedTuple):
    """Functions that build the `data` of events. They take the number of the block in its reply, counted from 1."""

    start: Callable[[int], list[str]]
    delta: Callable[[int, str], list[str]]
    end: Callable[[int], list[str]]


class _Blocks:
    """The blocks of one kind, at most one of them open."""

    def __init__(self, frames: BlockFrames) -> None:
        self._frames = frames
        self._number = 0
        self._open = False

    def delta(self, text: str) -> list[str]:
        start = [] if self._open else self._start()
        return [*start, *self._frames.delta(self._number, text)]

    def end(self) -> list[str]:
        was_open, self._open = self._open, False
        return self._frames.end(self._number) if was_open else []

    def _start(self) -> list[str]:
        self._open = True
        self._number += 1
        return self._frames.start(self._number)


class Texts:
    """The blocks of one reply. A tool event ends the open block; a block of one kind ends that of the other."""

    def __init__(self, texts: BlockFrames, reasoning: BlockFrames, *, text_sent: bool) -> None:
        self.text_sent = text_sent
        self._texts = _Blocks(texts)
        self._reasoning = _Blocks(reasoning)

    def add(self, kind: str, content: dict[str, Any]) -> list[str]:
        """For a `progress` or `reasoning` event."""
        text = content.get("text")
        if not isinstance(text, str) or not text:
            return []
        return self._text(text) if kind == "progress" else [*self._texts.end(), *self._reasoning.delta(text)]

    def end(self) -> list[str]:
        """Ends the open block, if there is one."""
        return [*self._reasoning.end(), *self._texts.end()]

    def finish(self, content: dict[str, Any]) -> list[str]:
        """Ends the open block; sends the texts of the `complete` or `stopped` event if none was streamed."""
        unsent = [] if self.text_sent else responses(content)
        return self.end() + [data for text in unsent for data in (*self._text(text), *self.end())]

    def _text(self, text: str) -> list[str]:
        self.text_sent = True
        return [*self._reasoning.end(), *self._texts.delta(text)]
