"""Separates a leading `<think>` block from the text, for servers that do not: its content is reasoning."""

from enum import Enum, auto
from typing import Final

from bff.engine.agents.openai.text import Texts

OPEN: Final = "<think>"
CLOSE: Final = "</think>"
MAX_BLANK: Final = 1024
"""Characters of white space that may precede the block."""


class _State(Enum):
    BEFORE = auto()
    """So far white space, or the beginning of the tag."""
    INSIDE = auto()
    AFTER = auto()
    """White space after the block is dropped."""
    TEXT = auto()


class Thinking:
    """Fed with the text's pieces, cut anywhere."""

    def __init__(self) -> None:
        self._state = _State.BEFORE
        self._held = ""

    def feed(self, piece: str) -> Texts:
        if self._state is _State.TEXT:
            return Texts(piece, "")
        self._held += piece
        reasoning = ""
        if self._state is _State.BEFORE:
            self._find_start()
        if self._state is _State.INSIDE:
            reasoning = self._take_reasoning()
        if self._state is _State.AFTER and (rest := self._held.lstrip()):
            self._state, self._held = _State.TEXT, rest
        return Texts(self._take() if self._state is _State.TEXT else "", reasoning)

    def end(self) -> Texts:
        """What was held back: it was no tag after all."""
        state, held = self._state, self._take()
        return Texts(held if state is _State.BEFORE else "", held if state is _State.INSIDE else "")

    def _find_start(self) -> None:
        start = self._held.lstrip()
        if start.startswith(OPEN):
            self._state, self._held = _State.INSIDE, start.removeprefix(OPEN)
        elif not OPEN.startswith(start) or len(self._held) > MAX_BLANK:
            self._state = _State.TEXT

    def _take_reasoning(self) -> str:
        before, tag, after = self._held.partition(CLOSE)
        if tag:
            self._state, self._held = _State.AFTER, after
            return before
        kept = next((size for size in range(len(CLOSE) - 1, 0, -1) if before.endswith(CLOSE[:size])), 0)
        self._held = before[len(before) - kept :]
        return before[: len(before) - kept]

    def _take(self) -> str:
        held, self._held = self._held, ""
        return held
