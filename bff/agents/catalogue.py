"""Which agents there are: what the settings make of this folder."""

from collections.abc import Mapping
from typing import Final

from bff.agents import Agent
from bff.agents.broker import Broker, Upstream
from bff.agents.echo import Echo
from bff.agents.openai import OpenAI
from bff.settings import Settings
from bff.transport import new_session
from bff.upstream import Remote, Timeouts

DEFAULT: Final = Echo.id


def create_agents(settings: Settings, upstream: Upstream | None = None) -> dict[str, Agent]:
    """By id, in the order in which they are listed. `upstream`: the configured broker or engine, if there is one."""
    agents: list[Agent | None] = [
        Echo(settings.echo_word_seconds),
        Broker(upstream) if upstream is not None else None,
        _openai(settings),
    ]
    return {agent.id: agent for agent in agents if agent is not None}


def engines_own(agents: Mapping[str, Agent]) -> Agent:
    """What the bundled engine answers direct chat through."""
    return agents.get(OpenAI.id) or agents[DEFAULT]


def _openai(settings: Settings) -> OpenAI | None:
    if not settings.openai_base_url:
        return None
    timeouts = Timeouts.of(settings)
    service = Remote(settings.openai_base_url, settings.openai_api_key)
    return OpenAI(service, new_session(), timeouts, settings.openai_model, settings.max_event_bytes)
