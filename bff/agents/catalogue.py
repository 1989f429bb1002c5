"""Which agents there are: what the settings make of this folder."""

from typing import Final

from bff.agents import Agent
from bff.agents.broker import Broker
from bff.agents.echo import Echo
from bff.agents.openai import OpenAI
from bff.broker_client import BrokerClient
from bff.settings import Settings
from bff.transport import new_session
from bff.upstream import Remote, Timeouts

DEFAULT: Final = Echo.id


def create_agents(settings: Settings, broker: BrokerClient) -> dict[str, Agent]:
    """By id, in the order in which they are listed."""
    agents: list[Agent | None] = [
        Echo(settings.echo_word_seconds),
        Broker(broker),
        _openai(settings),
    ]
    return {agent.id: agent for agent in agents if agent is not None}


def engines_own(settings: Settings) -> Agent:
    """What the bundled engine answers through."""
    return _openai(settings) or Echo(settings.echo_word_seconds)


def _openai(settings: Settings) -> OpenAI | None:
    if not settings.openai_base_url:
        return None
    timeouts = Timeouts.of(settings)
    service = Remote(settings.openai_base_url, settings.openai_api_key)
    return OpenAI(service, new_session(), timeouts, settings.openai_model, settings.max_event_bytes)
