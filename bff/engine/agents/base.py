"""Who replies. An agent is given what was said and says its reply in pieces.

A further agent is a file here, with a class that is an `Agent`, and its line in `catalogue.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from bff.auth.identity import Identity
from bff.errors import AnswerIncomplete, UpstreamError
from bff.http.waiting import Waiter
from bff.upstream.messages import ChatMessage

MAX_REPLY_CHARACTERS: Final = 200_000
"""Characters of one reply."""


Piece = str | Mapping[str, Any] | None
"""A piece of a reply; or an event of the engine's, such as tool_use, that is told beside it; None where there is none yet."""


class Agent(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def repeatable(self) -> bool:
        """Whether it may be asked again for a reply of which some was told, once the process that asked is gone."""

    def stream(self, history: Sequence[ChatMessage], identity: Identity, waiter: Waiter) -> Iterator[Piece]:
        """The reply to the last of `history`, piece by piece.

        Whatever it waits for it waits for at `waiter`, so that it ends when its reader does. Closed, it lets go of all it
        holds, and whoever works for it stops. Raises a ChatError when there will be no (whole) reply.
        """


class ReplyBuffer:
    """A reply, put together from its pieces."""

    def __init__(self, most: int = MAX_REPLY_CHARACTERS) -> None:
        """`most`: characters."""
        self._most = most
        self._pieces: list[str] = []
        self._characters = 0

    def add(self, piece: str) -> None:
        """Raises UpstreamError for a reply that grows too long."""
        self._pieces.append(piece)
        self._characters += len(piece)
        if self._characters > self._most:
            raise UpstreamError(detail=f"a reply of more than {self._most} characters")

    def text(self) -> str:
        """Raises AnswerIncomplete for a reply that says nothing."""
        text = "".join(self._pieces)
        if not text.strip():
            raise AnswerIncomplete(detail="an empty reply")
        return text


def last_user_message(history: Sequence[ChatMessage]) -> str:
    """What the user said last, "" when nothing."""
    return next((said.content for said in reversed(history) if said.role == "user"), "")
