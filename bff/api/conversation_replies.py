"""Replies in conversations, as messages in the bundled broker's queue: find, start and stop them.

The database decides whether a question has a reply, the queue whether one is being produced: see docs/protocol.md.
"""

import contextlib
from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from bff.api.schemas import StreamQuery
from bff.auth.identity import Identity
from bff.db.replies import Question, Replies
from bff.errors import Busy, Expired, InvalidRequest, NotFound
from bff.ops.rate_limiter import RateLimiter
from bff.upstream.agents import BROKER, AgentInfo
from bff.upstream.broker_client import BrokerClient, Run
from bff.upstream.reconnect import Reply

OWN_GROUP = ""
"""The user's own group, which direct chat uses."""


class OpenedReply(NamedTuple):
    """A reply for one client."""

    message_id: str
    reply: Reply
    restarted: bool
    """Whether the tokens that the client has read belong to an earlier run and no longer count."""
    resumed: bool


class _RequestedReply(NamedTuple):
    conversation_id: UUID
    question: Question
    agent: AgentInfo
    regenerate: str
    on_disconnect: str

    @property
    def group(self) -> str:
        return _group(self.conversation_id, self.agent)

    @property
    def scope(self) -> str:
        """A conversation has one run at a time."""
        return str(self.conversation_id)

    @property
    def key(self) -> str:
        """Requests for a reply to the same version of the question share a run."""
        return f"{self.question.id}:{self.question.version}:{self.regenerate}"

    def content(self) -> dict[str, str]:
        """The message for `BrokerClient.enqueue`."""
        return {
            "message": "",
            "handler": "bundled",
            "group": self.group,
            "run_scope": self.scope,
            "run_key": self.key,
            "conversation_id": str(self.conversation_id),
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
        """`broker`: the bundled one. `default`: the id of the default agent. `on_disconnect`: the default."""
        self._replies = replies
        self._broker = broker
        self.agents = agents
        self._default = default
        self._rate = rate
        self._on_disconnect = on_disconnect

    def agent(self, agent_id: str | None) -> AgentInfo:
        """The default agent for None. Raises InvalidRequest."""
        agent = self.agents.get(agent_id or self._default)
        if agent is None:
            raise InvalidRequest("agentId: is not listed by GET /api/agents.")
        return agent

    def open(self, identity: Identity, conversation_id: UUID, query: StreamQuery, after: str) -> OpenedReply | None:
        """Finds or starts the requested reply. None if it is stored already, or if nothing follows the event `after`.

        Raises Busy while the conversation has another run, InvalidRequest, NotFound, TooManyRequests, an UpstreamFailure.
        """
        question = self._replies.question(identity.owner, conversation_id, query.message_id, query.regenerate)
        agent = self.agent(query.agent_id or question.agent_id)
        on_disconnect = query.on_disconnect or self._on_disconnect
        requested = _RequestedReply(conversation_id, question, agent, query.regenerate, on_disconnect)
        runs = self._broker.runs(identity.user_id, requested.group, after)
        if runs.located is not None:
            return self._follow(identity.user_id, runs.located, on_disconnect, after)
        if question.answered:
            return None
        opened = self._join(identity, requested, runs.active)
        if opened is None:
            opened = self._follow(identity.user_id, self._start(identity, requested), on_disconnect)
        return opened and opened._replace(restarted=after != "")

    def _join(self, identity: Identity, requested: _RequestedReply, active: list[Run]) -> OpenedReply | None:
        """Opens the requested reply if it is running. None if it is not, or was stopped before the queue counted this reader.

        Raises Busy while the conversation has another run.
        """
        running = {run.key: run.message_id for run in active if run.scope == requested.scope and not run.stopping}
        message_id = running.get(requested.key)
        if message_id is None:
            if running:
                # The queue would refuse it as well, but only after the rate limiter has counted it.
                raise Busy("Another reply in this conversation is being written.")
            return None
        opened = self._follow(identity.user_id, message_id, requested.on_disconnect)
        if opened is not None and self._was_stopped(identity, requested, message_id):
            opened.reply.close()
            return None
        return opened

    def _was_stopped(self, identity: Identity, requested: _RequestedReply, message_id: str) -> bool:
        """Whether a run will not give the question a reply, as when its last reader has left."""
        active = self._broker.runs(identity.user_id, requested.group).active
        if any(run.message_id == message_id and not run.stopping for run in active):
            return False
        question_id = requested.question.id
        return not self._replies.question(identity.owner, requested.conversation_id, question_id, requested.regenerate).answered

    def _start(self, identity: Identity, requested: _RequestedReply) -> str:
        """Returns the message id."""
        self._rate.acquire(identity.user_id)
        return self._broker.enqueue(identity, requested.content(), self._broker.open_deadline()).message_id

    def _follow(self, user_id: str, message_id: str, on_disconnect: str, after: str = "") -> OpenedReply | None:
        deadline = self._broker.open_deadline()
        reply = self._broker.resume(user_id, message_id, deadline, after, on_disconnect=on_disconnect)
        if reply is None:
            return None
        return OpenedReply(message_id, reply, restarted=False, resumed=after != "")

    def stop(self, identity: Identity, conversation_id: UUID) -> None:
        """Stops whatever runs or waits in the conversation. Idempotent. Raises an UpstreamFailure."""
        groups = {_group(conversation_id, agent) for agent in self.agents.values()}
        for run in (run for group in groups for run in self._broker.runs(identity.user_id, group).active):
            if run.scope == str(conversation_id):
                with contextlib.suppress(NotFound, Expired):
                    self._broker.stop(identity.user_id, run.message_id)


def _group(conversation_id: UUID, agent: AgentInfo) -> str:
    """An external broker processes one message of a user at a time, so its messages wait in the user's own group."""
    return OWN_GROUP if agent.id == BROKER else f"conversation:{conversation_id}"
