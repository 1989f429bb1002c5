"""The database, agents, engines and brokers of a process, built once; web processes and workers share this."""

from collections.abc import Iterable

from bff.config.settings import Settings
from bff.db.database import open_database
from bff.engine.agents.base import Agent
from bff.engine.agents.broker import BrokerUpstream, EngineUpstream, Upstream
from bff.engine.agents.registry import DEFAULT_AGENT, create_agents, for_direct_chat
from bff.engine.app import bundled_engine
from bff.upstream.agents import BROKER, AgentInfo
from bff.upstream.broker_client import BrokerClient
from bff.upstream.engine_client import EngineClient
from bff.upstream.http import session_for
from bff.upstream.open_replies import OpenReplies
from bff.upstream.services import Remote, Service, Timeouts


class Services:
    def __init__(self, settings: Settings, own_agents: Iterable[Agent] = ()) -> None:
        self.settings = settings
        self.database = open_database(settings)
        self.external_broker = self._external_broker()
        """None without BROKER_BASE_URL."""
        external = Remote(settings.engine_base_url, settings.engine_api_key) if settings.engine_base_url else None
        self.external_engine = self._engine_client(external) if external else None
        """None without ENGINE_BASE_URL."""
        self.open_replies = OpenReplies()
        """Of the agent `broker`, if the external broker does not number its events."""
        self.agents = create_agents(settings, self._upstream(), own_agents)
        bundled = bundled_engine(settings, self.agents, self.database)
        self.bundled_engine = self._engine_client(bundled, is_bundled=True)
        """Runs the turns of conversations, whatever else is configured."""
        self.engine = self.external_engine or self.bundled_engine
        """Runs direct chat."""

    @property
    def agent_infos(self) -> dict[str, AgentInfo]:
        return {agent.id: _agent_info(agent) for agent in self.agents.values()}

    @property
    def direct_agent_id(self) -> str:
        """The agent of direct chat, of which `broker` stands for the configured broker or engine."""
        return BROKER if BROKER in self.agents else for_direct_chat(self.settings, self.agents).id

    def is_repeatable(self, handler: str, agent_id: str) -> bool:
        """Whether a reply may be retried after its output has begun.

        `handler`: see `Message.handler`; `agent_id`: "" for the default agent.
        """
        if handler == "external" or (handler == "engine" and self.external_engine is not None):
            return self.settings.engine_repeatable
        default = for_direct_chat(self.settings, self.agents) if handler == "engine" else self.agents[DEFAULT_AGENT]
        return getattr(self.agents.get(agent_id, default), "repeatable", False)

    def own_broker(self, bundled: Service) -> BrokerClient:
        in_memory = not self.settings.redis_url
        survives_restart = not in_memory or self.settings.journal_file() is not None
        return self._broker_client(bundled, survives_restart=survives_restart, is_bundled=True, runs_in_process=in_memory)

    def _broker_client(self, service: Service, **traits: bool) -> BrokerClient:
        settings = self.settings
        return BrokerClient(
            service,
            session_for(settings, to=service),
            Timeouts.of(settings),
            client_id=settings.client_id,
            max_event_bytes=settings.max_event_bytes,
            **traits,
        )

    def _external_broker(self) -> BrokerClient | None:
        settings = self.settings
        if not settings.broker_base_url:
            return None
        service = Remote(settings.broker_base_url, settings.broker_api_key)
        return self._broker_client(service, survives_restart=True, is_bundled=False)

    def _engine_client(self, service: Service, *, is_bundled: bool = False) -> EngineClient:
        settings = self.settings
        session, timeouts = session_for(settings, to=service), Timeouts.of(settings)
        return EngineClient(service, session, timeouts, settings.max_event_bytes, is_bundled=is_bundled)

    def _upstream(self) -> Upstream | None:
        """Where the agent `broker` sends messages to."""
        if self.external_broker is not None:
            seconds = self.settings.answer_max_seconds
            return BrokerUpstream(self.external_broker, self.external_engine, seconds, self.open_replies)
        return EngineUpstream(self.external_engine, self.settings.client_id) if self.external_engine is not None else None


def _agent_info(agent: Agent) -> AgentInfo:
    return AgentInfo(agent.id, agent.name, agent.description, frozenset(getattr(agent, "features", ())))
