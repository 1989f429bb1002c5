"""A conversation's replies as messages in the bundled broker's queue: found where they run, begun where they do not, stopped.

The database decides whether a question is answered, the queue whether its reply is being written: see docs/protocol.md.
"""

import contextlib
from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from bff.agents import Agent
from bff.agents.broker import Broker
from bff.broker_client import BrokerClient
from bff.conversations.replies import Question, Replies
from bff.conversations.schemas import StreamMessage
from bff.errors import Expired, InvalidRequest, NotFound
from bff.following import Answer
from bff.identity import Identity
from bff.ops.rate import Rate

OWN_GROUP = ""


class Opened(NamedTuple):
    """A reply on its way to one reader."""

    message_id: str
    answer: Answer
    restarted: bool
    """What the reader has read was told by a run that is gone."""
    resumed: bool


class ReplyRuns:
    def __init__(
        self,
        replies: Replies,
        broker: BrokerClient,
        agents: Mapping[str, Agent],
        default: str,
        rate: Rate,
        on_disconnect: str,
    ) -> None:
        """`broker`: the bundled one. `default`: the agent where none is named. `on_disconnect`: of readers who name none."""
        self._replies = replies
        self._broker = broker
        self.agents = agents
        self._default = default
        self._rate = rate
        self._on_disconnect = on_disconnect

    @property
    def outlives_us(self) -> bool:
        """Whether another process can go on with a reply once this one has gone."""
        return self._broker.outlives_us

    def agent(self, agent_id: str | None) -> Agent:
        """Raises InvalidRequest."""
        agent = self.agents.get(agent_id or self._default)
        if agent is None:
            raise InvalidRequest("agentId: is none of GET /api/agents.")
        return agent

    def open(self, identity: Identity, conversation_id: UUID, wish: StreamMessage, after: str) -> Opened | None:
        """The reply that is asked for, after the event `after`; None when it was given, or its end was seen.

        Raises Busy while the conversation has another run, InvalidRequest, NotFound, TooManyRequests, an UpstreamFailure.
        """
        question = self._replies.question(identity.owner, conversation_id, wish.message_id, wish.regenerate)
        agent = self.agent(wish.agent_id or question.agent_id)
        on_disconnect = wish.on_disconnect or self._on_disconnect
        group = _group(conversation_id, agent)
        runs = self._broker.runs(identity.user_id, group, after)
        if runs.located is not None:
            return self._follow(identity, runs.located, after, on_disconnect)
        if question.answered:
            return None
        key = f"{question.id}:{question.version}:{wish.regenerate}"
        running = [run.message_id for run in runs.active if (run.scope, run.key) == (str(conversation_id), key)]
        if not running:
            self._rate.count(identity.user_id)
            running = [self._begin(identity, conversation_id, question, key, group, agent, wish.regenerate, on_disconnect)]
        opened = self._follow(identity, running[0], "", on_disconnect)
        return opened and opened._replace(restarted=after != "")

    def _begin(
        self,
        identity: Identity,
        conversation_id: UUID,
        question: Question,
        key: str,
        group: str,
        agent: Agent,
        regenerate: str,
        on_disconnect: str,
    ) -> str:
        content = {
            "message": "",
            "handler": "bundled",
            "group": group,
            "run_scope": str(conversation_id),
            "run_key": key,
            "conversation_id": str(conversation_id),
            "question_id": str(question.id),
            "agent_id": agent.id,
            "regenerate": regenerate,
            "on_busy": "enqueue",
            "on_disconnect": on_disconnect,
        }
        return self._broker.enqueue(identity, content, self._broker.opening()).message_id

    def _follow(self, identity: Identity, message_id: str, after: str, on_disconnect: str) -> Opened | None:
        answer = self._broker.resume(identity.user_id, message_id, self._broker.opening(), after, on_disconnect=on_disconnect)
        if answer is None:
            return None
        return Opened(message_id, answer, restarted=False, resumed=after != "")

    def stop(self, identity: Identity, conversation_id: UUID) -> None:
        """Whatever runs or waits in the conversation. Idempotent. Raises an UpstreamFailure."""
        groups = {_group(conversation_id, agent) for agent in self.agents.values()}
        for run in (run for group in groups for run in self._broker.runs(identity.user_id, group).active):
            if run.scope == str(conversation_id):
                with contextlib.suppress(NotFound, Expired):
                    self._broker.stop(identity.user_id, run.message_id)


def _group(conversation_id: UUID, agent: Agent) -> str:
    """An external broker answers one message of a user at a time: what goes there waits in the user's own group."""
    return OWN_GROUP if agent.id == Broker.id else f"conversation:{conversation_id}"
