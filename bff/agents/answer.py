"""An agent's reply, as the answer that a relay reads: for clients that bring their whole history along."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing

from bff.agents import Agent, Said
from bff.identity import Identity
from bff.ops.hub import Watch
from bff.sse import Event


class Reply:
    """It is kept nowhere: whoever leaves it has lost it, and the agent stops."""

    reconnects = 0

    def __init__(self, agent: Agent, history: Sequence[Said], identity: Identity) -> None:
        self._agent = agent
        self._history = history
        self._identity = identity

    def events(self, watch: Watch) -> Iterator[Event | None]:
        said: list[str] = []
        with closing(self._agent.stream(self._history, self._identity, watch)) as pieces:
            for piece in pieces:
                if piece is not None:
                    said.append(piece)
                    yield _event({"type": "progress", "text": piece})
                yield None
        response = {"responses": ["".join(said)], "response_language": None, "voice_audio_base64": None}
        yield _event({"type": "complete", "response": response})

    def close(self) -> None:
        """The generator lets go of all it holds."""


def _event(content: dict[str, object]) -> Event:
    return Event("message", json.dumps(content))
