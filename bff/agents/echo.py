"""Says the last user message back, word by word."""

import re
from collections.abc import Iterator, Sequence
from time import monotonic

from bff.agents import Said
from bff.ops.hub import Watch


class Echo:
    def __init__(self, word_seconds: float) -> None:
        self._word_seconds = word_seconds

    def stream(self, history: Sequence[Said], watch: Watch) -> Iterator[str | None]:
        last = next((said.content for said in reversed(history) if said.role == "user"), "")
        return spread(words(last), self._word_seconds, watch)


def words(text: str) -> list[str]:
    """Cut after each run of white space, so that the pieces joined are the text again."""
    return re.findall(r"\s*\S+\s*|\s+", text)


def spread(pieces: Sequence[str], seconds: float, watch: Watch) -> Iterator[str | None]:
    """The first piece at once, `seconds` before each other one."""
    for number, piece in enumerate(pieces):
        if number and seconds:
            yield from pause(seconds, watch)
        yield piece


def pause(seconds: float, watch: Watch) -> Iterator[None]:
    end = monotonic() + seconds
    while monotonic() < end:
        yield None
        watch.wait(until=end)
