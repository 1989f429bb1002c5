"""Who replies. An agent is given what was said and says its reply in pieces."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

from bff.ops.hub import Watch


class Said(NamedTuple):
    role: Literal["user", "assistant"]
    content: str


class Agent(Protocol):
    def stream(self, history: Sequence[Said], watch: Watch) -> Iterator[str | None]:
        """The reply to the last of `history`, piece by piece; None where there is none yet.

        Whatever it waits for it waits for at `watch`, so that it ends when its reader does.
        """
