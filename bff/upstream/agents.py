"""What is known of the bundled engine's agents outside of it."""

from typing import Final, NamedTuple

BROKER: Final = "broker"
"""The id of the agent that passes messages on to the configured broker or engine."""


class AgentInfo(NamedTuple):
    """An entry of `GET /api/agents`."""

    id: str
    name: str
    description: str
