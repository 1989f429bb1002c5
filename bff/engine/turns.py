"""One turn: what was said before is loaded, an agent replies, the reply is stored, and then `complete` ends it.

A turn of a conversation answers a question that is stored; a turn of the direct chat brings its question along; a completion
brings all its messages along, and nothing of it is stored.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from bff.auth.identity import Identity
from bff.db.direct_chat import DirectChat
from bff.db.models import Message
from bff.db.replies import Replies
from bff.engine.agents.base import MAX_REPLY_CHARACTERS, Agent, ReplyBuffer
from bff.engine.agents.registry import DEFAULT
from bff.errors import Interrupted, InvalidRequest, UpstreamUnavailable
from bff.http.waiting import Waiter
from bff.upstream import events
from bff.upstream.messages import ChatMessage

DATABASE_SECONDS: Final = 30.0
"""For which a turn insists while the database is away, before it fails."""
AGAIN_SECONDS: Final = 0.25
MAX_DIRECT: Final = 16 * 1024 * 1024
"""Characters of a reply in the direct chat; those of an event, and of a log, are bounded elsewhere."""
LANGUAGE: Final = "en"
"""Of a direct reply whose user has chosen none."""

Contents = Iterator[dict[str, Any] | None]
"""Of the engine's events; None where there is nothing yet."""
T = TypeVar("T")


class ConversationTurn(NamedTuple):
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


class DirectTurn(NamedTuple):
    identity: Identity
    turn_id: str
    question: str
    spoken: bool
    audio_urls: str
    """What the URLs of this user's spoken replies begin with."""
    begun: bool


class Completion(NamedTuple):
    identity: Identity
    agent_id: str
    messages: Sequence[ChatMessage]


class Turns:
    def __init__(self, replies: Replies, direct: DirectChat, agents: Mapping[str, Agent], direct_agent: Agent) -> None:
        self._replies = replies
        self.direct_chat = direct
        self._agents = agents
        self._direct_agent = direct_agent

    # Each gives the engine's events, and stores the reply once `waiter` confirms that it is still wanted. Raises
    # InvalidRequest, NotFound, Interrupted, what the agent raises, and UpstreamUnavailable without a database.

    def conversation(self, turn: ConversationTurn, waiter: Waiter) -> Contents:
        agent = self._agent(turn.agent_id)
        task = yield from _retry(lambda: self._replies.task(*turn.of_question, turn.regenerate), waiter)
        if task.reply is not None:
            yield _stored(task.reply)
            return
        _check_not_begun(turn.begun)
        text = yield from _reply(agent, task.history, turn.identity, waiter)
        yield from _confirmed(waiter)
        about = (*turn.of_question, task.version, turn.regenerate, text)
        yield _stored((yield from _retry(lambda: self._replies.store(*about), waiter)))

    def direct(self, turn: DirectTurn, waiter: Waiter) -> Contents:
        owner, direct = turn.identity.owner, self.direct_chat
        task = yield from _retry(lambda: direct.task(owner, turn.turn_id, turn.question), waiter)
        if task.reply is not None:
            yield _direct(turn, task.reply, task.reply.content, task.language)
            return
        _check_not_begun(turn.begun)
        text = yield from _reply(self._direct_agent, task.history, turn.identity, waiter, MAX_DIRECT)
        yield from _confirmed(waiter)
        about = (owner, turn.turn_id, turn.question, text)
        reply = yield from _retry(lambda: direct.store(*about, spoken=turn.spoken), waiter)
        yield _direct(turn, reply, text, task.language)

    def completion(self, turn: Completion, waiter: Waiter) -> Contents:
        text = yield from _reply(self._agent(turn.agent_id), turn.messages, turn.identity, waiter)
        yield {"type": "complete", "response": events.response([text])}

    def keep_stopped(self, turn: ConversationTurn, text: str) -> Message:
        """Raises NotFound, UpstreamUnavailable."""
        version = self._replies.task(*turn.of_question, turn.regenerate).version
        return self._replies.store(*turn.of_question, version, turn.regenerate, _sound(text))

    def _agent(self, agent_id: str) -> Agent:
        agent = self._agents.get(agent_id or DEFAULT)
        if agent is None:
            raise InvalidRequest("agentId: is none of GET /api/agents.")
        return agent


def _check_not_begun(begun: bool) -> None:
    if begun:
        raise Interrupted(detail="its worker died before the reply was stored")


def _reply(
    agent: Agent, history: Sequence[ChatMessage], identity: Identity, waiter: Waiter, most: int = MAX_REPLY_CHARACTERS
) -> Generator[dict[str, Any] | None, None, str]:
    """Tells the pieces; gives the whole, once the agent has ended. Raises AnswerIncomplete for a reply that says nothing."""
    whole = ReplyBuffer(most)
    pieces = agent.stream(history, identity, waiter)
    try:
        for piece in pieces:
            if isinstance(piece, Mapping):
                yield dict(piece)
            elif text := (piece or "").replace("\0", ""):
                whole.add(text)
                yield {"type": "progress", "text": text}
            yield None
    finally:
        if (close := getattr(pieces, "close", None)) is not None:
            close()
    return _sound(whole.text())


def _confirmed(waiter: Waiter) -> Generator[None, None, None]:
    yield None  # What was said goes out first.
    yield from waiter.confirm_connected()


def _retry(do: Callable[[], T], waiter: Waiter) -> Generator[None, None, T]:
    deadline = monotonic() + DATABASE_SECONDS
    while True:
        try:
            return do()
        except UpstreamUnavailable:
            if monotonic() >= deadline:
                raise
        yield from waiter.sleep(AGAIN_SECONDS)


def _stored(reply: Message) -> dict[str, Any]:
    return {"type": "complete", "response": events.response([reply.content]) | {"message_id": str(reply.id)}}


def _direct(turn: DirectTurn, reply: Message, text: str, language: str) -> dict[str, Any]:
    voice = {"voice_audio_url": f"{turn.audio_urls}{reply.id}.wav"} if turn.spoken else {}
    return {"type": "complete", "response": events.response([text], language or LANGUAGE) | voice}


def _sound(text: str) -> str:
    """Some send the halves of a surrogate pair apart: joined they are a character, alone no text can hold them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
