"""An agent that repeats the last user message, word by word."""

import re
from collections.abc import Generator, Iterable, Iterator, Sequence

from bff.auth.identity import Identity
from bff.engine.agents.base import last_user_message
from bff.http.waiting import Waiter
from bff.upstream.messages import ChatMessage


class Echo:
    id = "echo"
    name = "Echo"
    description = "Says your last message back, word by word."
    repeatable = True

    def __init__(self, word_seconds: float) -> None:
        self._word_seconds = word_seconds

    def stream(self, history: Sequence[ChatMessage], identity: Identity, waiter: Waiter) -> Generator[str | None]:
        return paced(split_words(last_user_message(history)), self._word_seconds, waiter)


def split_words(text: str) -> Iterator[str]:
    """Splits after each run of white space; joined, the words are the text again."""
    return (match[0] for match in re.finditer(r"\s*\S+\s*|\s+", text))


def paced(pieces: Iterable[str], seconds: float, waiter: Waiter) -> Generator[str | None]:
    """The pieces, with `seconds` between two of them."""
    for number, piece in enumerate(pieces):
        if number and seconds:
            yield from waiter.sleep(seconds)
        yield piece
