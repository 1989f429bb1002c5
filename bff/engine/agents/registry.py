"""Creates the agents: ours that the settings enable, the application's, and those of installed packages."""

from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import entry_points
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
BUNDLED: Final = frozenset({Echo.id, Demo.id, Broker.id, OpenAI.id})
ENTRY_POINTS: Final = "chat_bff.agents"
"""The group of entry points: https://packaging.python.org/en/latest/specifications/entry-points/."""


def create_agents(settings: Settings, upstream: Upstream | None = None, own: Iterable[Agent] = ()) -> dict[str, Agent]:
    """By id, in the order of `GET /api/agents`. `upstream`: the configured broker or engine, if any.

    `own`: agents of the application, besides those of installed packages. Raises SettingsError if one cannot be loaded, if
    two have one id, or if DEFAULT_AGENT is not one of them.
    """
    bundled: list[Agent | None] = [
        Echo(settings.echo_word_seconds),
        Demo(settings.echo_word_seconds),
        Broker(upstream) if upstream is not None else None,
        _openai(settings),
    ]
    by_id: dict[str, Agent] = {}
    for agent in (*bundled, *own, *installed_agents()):
        if agent is None:
            continue
        if agent.id in by_id:
            raise SettingsError(f"There are two agents with the id {agent.id!r}.")
        by_id[agent.id] = agent
    if settings.default_agent and settings.default_agent not in by_id:
        raise SettingsError(f"DEFAULT_AGENT={settings.default_agent!r} is not one of {', '.join(by_id)}.")
    return by_id


def installed_agents() -> Iterator[Agent]:
    """The agents that installed packages declare as entry points. Each is an agent, or is called to create one.

    Raises SettingsError if one cannot be imported or created.
    """
    for entry_point in entry_points(group=ENTRY_POINTS):
        try:
            loaded = entry_point.load()
            yield loaded() if isinstance(loaded, type) or not hasattr(loaded, "stream") else loaded
        except Exception as error:
            raise SettingsError(f"The agent {entry_point.value} cannot be loaded: {error!r}.") from error


def for_direct_chat(settings: Settings, agents: Mapping[str, Agent]) -> Agent:
    """The agent that replies in direct chat if the bundled engine does: DEFAULT_AGENT, else the first of the application's."""
    own = (agent_id for agent_id in agents if agent_id not in BUNDLED)
    return agents[settings.default_agent or next(own, OpenAI.id if OpenAI.id in agents else Demo.id)]


def _openai(settings: Settings) -> OpenAI | None:
    if not settings.openai_base_url:
        return None
    timeouts = Timeouts.of(settings)._replace(silence=settings.model_read_seconds)
    service = Remote(settings.openai_base_url, settings.openai_api_key)
    return OpenAI(service, session_for(settings), timeouts, settings.openai_model, settings.max_event_bytes)
