"""An agent's reply, as the answer that a relay reads: for clients that bring their whole history along."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial

from bff import events
from bff.agents import Agent, Said, Whole
from bff.errors import AnswerTimeout
from bff.identity import Identity
from bff.ops import hub
from bff.ops.hub import Watch
from bff.sse import Event


class Reply:
    """It is kept nowhere: whoever leaves it has lost it, and the agent stops."""

    reconnects = 0
    unfinished = False

    def __init__(self, agent: Agent, history: Sequence[Said], identity: Identity, seconds: float) -> None:
        """`seconds`: for all of it."""
        self._agent = agent
        self._history = history
        self._identity = identity
        self._seconds = seconds

    def events(self, watch: Watch) -> Iterator[Event | None]:
        timer = hub.later(self._seconds, partial(watch.end, AnswerTimeout()))
        try:
            yield from self._told(watch)
        finally:
            timer.cancel()

    def _told(self, watch: Watch) -> Iterator[Event | None]:
        whole = Whole()
        with closing(self._agent.stream(self._history, self._identity, watch)) as pieces:
            for piece in pieces:
                if piece is not None:
                    whole.add(piece)
                    yield events.event({"type": "progress", "text": piece})
                yield None
        yield events.event({"type": "complete", "response": events.response([whole.text()])})

    def close(self) -> None:
        """The generator lets go of all it holds."""
