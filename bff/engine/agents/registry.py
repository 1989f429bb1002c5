"""Creates the agents that the settings enable."""

from collections.abc import Mapping
from typing import Final

from bff.config.settings import Settings
from bff.engine.agents.base import Agent
from bff.engine.agents.broker import Broker, Upstream
from bff.engine.agents.demo import Demo
from bff.engine.agents.echo import Echo
from bff.engine.agents.openai import OpenAI
from bff.errors import SettingsError
from bff.upstream.http import session_for
from bff.upstream.services import Remote, Timeouts

DEFAULT_AGENT: Final = Echo.id
"""The agent of conversations where none is named."""


def create_agents(settings: Settings, upstream: Upstream | None = None) -> dict[str, Agent]:
    """By id, in the order of `GET /api/agents`. `upstream`: the configured broker or engine, if any.

    Raises SettingsError if DEFAULT_AGENT is not one of them.
    """
    agents: list[Agent | None] = [
        Echo(settings.echo_word_seconds),
        Demo(settings.echo_word_seconds),
        Broker(upstream) if upstream is not None else None,
        _openai(settings),
    ]
    by_id = {agent.id: agent for agent in agents if agent is not None}
    if settings.default_agent and settings.default_agent not in by_id:
        raise SettingsError(f"DEFAULT_AGENT={settings.default_agent!r} is none of {', '.join(by_id)}.")
    return by_id


def for_direct_chat(settings: Settings, agents: Mapping[str, Agent]) -> Agent:
    """The agent that replies in direct chat if the bundled engine does."""
    return agents[settings.default_agent or (OpenAI.id if OpenAI.id in agents else Demo.id)]


def _openai(settings: Settings) -> OpenAI | None:
    if not settings.openai_base_url:
        return None
    timeouts = Timeouts.of(settings)._replace(silence=settings.model_read_seconds)
    service = Remote(settings.openai_base_url, settings.openai_api_key)
    return OpenAI(service, session_for(settings), timeouts, settings.openai_model, settings.max_event_bytes)
