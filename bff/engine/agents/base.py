"""The contract of agents: an agent is given the messages so far and produces a reply, piece by piece.

To add an agent, add a module with a class that satisfies `Agent` to this package, and list it in `registry.py`.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from bff.auth.identity import Identity
from bff.errors import AnswerIncomplete, UpstreamError
from bff.http.waiting import Waiter
from bff.upstream.messages import ChatMessage

MAX_REPLY_CHARACTERS: Final = 200_000


class Ending(NamedTuple):
    """What an agent knows about the end of its reply: a generator's return value."""

    truncated: bool = False
    """Whether the model's own limit cut the reply short."""
    usage: Mapping[str, int] | None = None
    """Tokens, as in OpenAI's API."""


Piece = str | Mapping[str, Any] | None
"""Text of a reply; or another event of the engine's, such as tool_use or reasoning; None while there is neither."""
EndedPieces = Generator[Piece, None, Ending]
"""The pieces of an agent that knows how its reply ended."""


class Agent(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def repeatable(self) -> bool:
        """Whether a reply may be retried after its output has begun, if its worker died or was shut down."""

    def stream(self, history: Sequence[ChatMessage], identity: Identity, waiter: Waiter) -> Iterator[Piece]:
        """The reply to the last message of `history`.

        It waits only with `waiter`, so that it ends when its reader disconnects. When the iterator is closed, it releases
        everything it holds and cancels its upstream. A generator may return an `Ending`. Raises a ChatError if the reply fails
        or stays incomplete.
        """


class ReplyBuffer:
    """Joins the pieces of a reply, `max_characters` at most."""

    def __init__(self, max_characters: int = MAX_REPLY_CHARACTERS) -> None:
        self._max_characters = max_characters
        self._pieces: list[str] = []
        self._characters = 0

    def add(self, piece: str) -> None:
        """Raises UpstreamError if the reply becomes too long."""
        self._pieces.append(piece)
        self._characters += len(piece)
        if self._characters > self._max_characters:
            raise UpstreamError(detail=f"a reply of more than {self._max_characters} characters")

    def text(self) -> str:
        """Raises AnswerIncomplete if the reply is blank."""
        text = "".join(self._pieces)
        if not text.strip():
            raise AnswerIncomplete(detail="an empty reply")
        return text


def last_user_message(history: Sequence[ChatMessage]) -> str:
    """Its text; "" if there is none."""
    return next((message.content for message in reversed(history) if message.role == "user"), "")
