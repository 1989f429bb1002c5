"""What modules outside the bundled engine know of its agents."""

from typing import Final, NamedTuple

BROKER: Final = "broker"
"""Id of the agent that forwards messages to the configured broker or engine."""


class AgentInfo(NamedTuple):
    """An entry of `GET /api/agents`."""

    id: str
    name: str
    description: str
