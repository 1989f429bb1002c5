"""A conversation's turn: the history is loaded, an agent replies, the reply is stored, and then `complete` names its id."""

from collections.abc import Callable, Generator, Mapping
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from bff import events
from bff.agents import Agent, Whole
from bff.agents.catalogue import DEFAULT
from bff.conversations.models import Message
from bff.conversations.replies import Replies
from bff.engine.commands import Contents
from bff.errors import Interrupted, InvalidRequest, UpstreamUnavailable
from bff.identity import Identity
from bff.ops.hub import Watch

DATABASE_SECONDS: Final = 30.0
"""For which a turn insists while the database is away, before it fails."""
AGAIN_SECONDS: Final = 0.25

T = TypeVar("T")


class TurnRequest(NamedTuple):
    identity: Identity
    conversation_id: UUID
    question_id: UUID
    agent_id: str
    regenerate: str
    begun: bool
    """A worker before has told some of the reply and may have stored it: it must not be begun anew."""

    @property
    def of_question(self) -> tuple[str, UUID, UUID]:
        return self.identity.owner, self.conversation_id, self.question_id


class Turns:
    def __init__(self, replies: Replies, agents: Mapping[str, Agent]) -> None:
        self._replies = replies
        self._agents = agents

    def say(self, request: TurnRequest, watch: Watch) -> Contents:
        """The engine's events. Stored once `watch` confirms that the reply is still wanted.

        Raises InvalidRequest, NotFound, Interrupted, what the agent raises, and UpstreamUnavailable without a database.
        """
        agent = self._agents.get(request.agent_id or DEFAULT)
        if agent is None:
            raise InvalidRequest("agentId: is none of GET /api/agents.")
        task = yield from _insist(lambda: self._replies.task(*request.of_question, request.regenerate), watch)
        if task.reply is not None:
            yield _complete(task.reply)
            return
        if request.begun:
            raise Interrupted(detail="its worker died before the reply was stored")
        whole = Whole()
        for piece in agent.stream(task.history, request.identity, watch):
            if text := (piece or "").replace("\0", ""):
                whole.add(text)
                yield {"type": "progress", "text": text}
            yield None
        content = _sound(whole.text())
        yield from _confirmed(watch)
        yield _complete((yield from self._store(request, task.version, content, watch)))

    def keep_stopped(self, request: TurnRequest, text: str) -> Message:
        """Raises NotFound, UpstreamUnavailable."""
        version = self._replies.task(*request.of_question, request.regenerate).version
        return self._replies.store(*request.of_question, version, request.regenerate, _sound(text))

    def _store(self, request: TurnRequest, version: int, content: str, watch: Watch) -> Generator[None, None, Message]:
        store = lambda: self._replies.store(*request.of_question, version, request.regenerate, content)  # noqa: E731
        return (yield from _insist(store, watch))


def _confirmed(watch: Watch) -> Generator[None, None, None]:
    yield None  # What was said goes out first.
    yield from watch.make_sure()


def _insist(do: Callable[[], T], watch: Watch) -> Generator[None, None, T]:
    deadline = monotonic() + DATABASE_SECONDS
    while True:
        try:
            return do()
        except UpstreamUnavailable:
            if monotonic() >= deadline:
                raise
        yield from watch.pause(AGAIN_SECONDS)


def _complete(reply: Message) -> dict[str, Any]:
    return {"type": "complete", "response": events.response([reply.content]) | {"message_id": str(reply.id)}}


def _sound(text: str) -> str:
    """Some send the halves of a surrogate pair apart: joined they are a character, alone no text can hold them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
