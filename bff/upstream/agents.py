"""What modules outside the bundled engine know of its agents."""

from typing import Final, NamedTuple

BROKER: Final = "broker"
"""Id of the agent that forwards messages to the configured broker or engine."""

# Features of agents: what they can do with a request to /v1.
RESPONSE_FORMAT: Final = "response_format"
"""Their `options` may have a `response_format`."""
TOOLS: Final = "tools"
"""Their `options` may have `tools` and `tool_choice`. Their replies are text all the same."""
TOOL_MESSAGES: Final = "tool_messages"
"""Their history may have messages of the role `tool`, and `tool_calls` in those of the role `assistant`."""
CONTINUE_ASSISTANT: Final = "continue_assistant"
"""Their history may end with a message of the role `assistant`."""


class AgentInfo(NamedTuple):
    """An entry of `GET /api/agents`."""

    id: str
    name: str
    description: str
    features: frozenset[str] = frozenset()

    def as_json(self) -> dict[str, str]:
        return {"id": self.id, "name": self.name, "description": self.description}
