"""The contract of agents: an agent is given the messages so far and produces a reply, piece by piece.

docs/extending.md says how to add agents of your own, which may also be plain generators that know nothing of waiters.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any, Final, NamedTuple, Protocol

from bff.auth.identity import Identity
from bff.errors import AnswerIncomplete, UpstreamError
from bff.http.waiting import Waiter
from bff.http.waiting.background import in_background
from bff.upstream.messages import ChatMessage

MAX_REPLY_CHARACTERS: Final = 200_000
NO_OPTIONS: Final[Mapping[str, Any]] = {}


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


def open_stream(
    agent: Agent, history: Sequence[ChatMessage], identity: Identity, waiter: Waiter, options: Mapping[str, Any]
) -> Iterator[Piece]:
    """Calls `agent.stream`, with the waiter and the options if it takes them.

    `options`: fields of a request to /v1 in OpenAI's format: sampling parameters, and what the agent's `features` add.
    """
    parameters = signature(agent.stream).parameters
    more = {"options": options} if options and "options" in parameters else {}
    if _takes_waiter(parameters):
        return agent.stream(history, identity, waiter, **more)
    plain: Callable[..., Iterator[Piece]] = agent.stream
    return _iterate_in_background(plain(history, identity, **more), waiter)


def _takes_waiter(parameters: Mapping[str, Parameter]) -> bool:
    """Whether there is a third positional parameter, whatever its name."""
    kinds = [parameter.kind for name, parameter in parameters.items() if name != "options"]
    positional = sum(kind in {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD} for kind in kinds)
    return positional > 2 or Parameter.VAR_POSITIONAL in kinds


def _iterate_in_background(pieces: Iterator[Piece], waiter: Waiter) -> EndedPieces:
    """For agents that do not wait with a waiter: each piece is awaited in a thread, so that the reply can end meanwhile."""
    close = getattr(pieces, "close", lambda: None)

    def next_piece(_: Waiter) -> tuple[Piece, Ending | None]:
        try:
            return next(pieces), None
        except StopIteration as end:
            return None, end.value or Ending()

    waiting = False
    try:
        while True:
            waiting = True
            piece, ending = yield from in_background(next_piece, waiter, lambda _: close())
            waiting = False
            if ending is not None:
                return ending
            yield piece
    finally:
        if not waiting:  # Otherwise the thread closes it, once it has its piece.
            close()


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
