"""A conversation's replies as messages in the bundled broker's queue: found where they run, begun where they do not, stopped.

The database decides whether a question is answered, the queue whether its reply is being written: see docs/protocol.md.
"""

import contextlib
from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from bff.api.schemas import StreamMessage
from bff.auth.identity import Identity
from bff.db.replies import Question, Replies
from bff.errors import Busy, Expired, InvalidRequest, NotFound
from bff.ops.rate_limiter import RateLimiter
from bff.upstream.agents import BROKER, AgentInfo
from bff.upstream.broker_client import BrokerClient
from bff.upstream.reconnect import Reply

OWN_GROUP = ""


class Opened(NamedTuple):
    """A reply on its way to one reader."""

    message_id: str
    answer: Reply
    restarted: bool
    """What the reader has read was told by a run that is gone."""
    resumed: bool


class _Asked(NamedTuple):
    conversation_id: UUID
    question: Question
    agent: AgentInfo
    regenerate: str
    on_disconnect: str

    @property
    def group(self) -> str:
        return _group(self.conversation_id, self.agent)

    @property
    def run(self) -> tuple[str, str]:
        """Scope and key: one run in a conversation at a time, which those who ask for the same version's reply share."""
        return str(self.conversation_id), f"{self.question.id}:{self.question.version}:{self.regenerate}"

    def content(self) -> dict[str, str]:
        """The message, as the broker takes it."""
        scope, key = self.run
        return {
            "message": "",
            "handler": "bundled",
            "group": self.group,
            "run_scope": scope,
            "run_key": key,
            "conversation_id": scope,
            "question_id": str(self.question.id),
            "agent_id": self.agent.id,
            "regenerate": self.regenerate,
            "on_busy": "enqueue",
            "on_disconnect": self.on_disconnect,
        }


class ReplyRuns:
    def __init__(
        self,
        replies: Replies,
        broker: BrokerClient,
        agents: Mapping[str, AgentInfo],
        default: str,
        rate: RateLimiter,
        on_disconnect: str,
    ) -> None:
        """`broker`: the bundled one. `default`: the agent where none is named. `on_disconnect`: of readers who name none."""
        self._replies = replies
        self._broker = broker
        self.agents = agents
        self._default = default
        self._rate = rate
        self._on_disconnect = on_disconnect

    def agent(self, agent_id: str | None) -> AgentInfo:
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
        asked = _Asked(conversation_id, question, agent, wish.regenerate, wish.on_disconnect or self._on_disconnect)
        runs = self._broker.runs(identity.user_id, asked.group, after)
        if runs.located is not None:
            return self._follow(identity.user_id, runs.located, asked.on_disconnect, after)
        if question.answered:
            return None
        running = {run.key: run.message_id for run in runs.active if run.scope == asked.run[0] and not run.stopping}
        message_id = running.get(asked.run[1])
        if message_id is None:
            if running:
                raise Busy("Another reply in this conversation is being written.")  # As the queue would, but counted nowhere.
            self._rate.acquire(identity.user_id)
            message_id = self._broker.enqueue(identity, asked.content(), self._broker.open_deadline()).message_id
        opened = self._follow(identity.user_id, message_id, asked.on_disconnect)
        return opened and opened._replace(restarted=after != "")

    def _follow(self, user_id: str, message_id: str, on_disconnect: str, after: str = "") -> Opened | None:
        deadline = self._broker.open_deadline()
        answer = self._broker.resume(user_id, message_id, deadline, after, on_disconnect=on_disconnect)
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


def _group(conversation_id: UUID, agent: AgentInfo) -> str:
    """An external broker answers one message of a user at a time: what goes there waits in the user's own group."""
    return OWN_GROUP if agent.id == BROKER else f"conversation:{conversation_id}"
