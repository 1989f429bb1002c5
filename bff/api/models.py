"""The models of /v1: direct chat, and the agents."""

from typing import Final

from bff.api import services
from bff.errors import NotFound
from bff.upstream.agents import BROKER

DEFAULT: Final = "default"
"""Direct chat. For chat completions through the broker; for responses its agent."""


def names() -> tuple[str, ...]:
    return DEFAULT, *(name for name in services.parts().agents if name != BROKER)


def check(name: str) -> None:
    """Raises NotFound."""
    if name not in names():
        raise NotFound("There is no such model here.")


def features(name: str) -> frozenset[str]:
    """Of an agent; direct chat has none. Raises NotFound."""
    check(name)
    return services.parts().agents[name].features if name != DEFAULT else frozenset()


def agent_id(name: str) -> str:
    """The agent that replies. Raises NotFound."""
    check(name)
    return services.parts().direct_agent_id if name == DEFAULT else name
