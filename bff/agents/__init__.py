"""Who replies. An agent is given what was said and says its reply in pieces.

A further agent is a file here, with a class that is an `Agent`, and its line in `catalogue.py`.
"""

from collections.abc import Generator, Iterator, Sequence
from time import monotonic
from typing import Literal, NamedTuple, Protocol

from bff.identity import Identity
from bff.ops.hub import Watch


class Said(NamedTuple):
    role: Literal["user", "assistant"]
    content: str


class Agent(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...

    def stream(self, history: Sequence[Said], identity: Identity, watch: Watch) -> Generator[str | None]:
        """The reply to the last of `history`, piece by piece; None where there is none yet.

        Whatever it waits for it waits for at `watch`, so that it ends when its reader does. Closed, it lets go of all it
        holds, and whoever works for it stops. Raises a ChatError when there will be no (whole) reply.
        """


def last_question(history: Sequence[Said]) -> str:
    """What the user said last, "" when nothing."""
    return next((said.content for said in reversed(history) if said.role == "user"), "")


def pause(seconds: float, watch: Watch) -> Iterator[None]:
    end = monotonic() + seconds
    while monotonic() < end:
        yield None
        watch.wait(until=end)
