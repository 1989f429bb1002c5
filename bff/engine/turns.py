"""A turn: the history is loaded, an agent replies, the reply is stored, and `complete` ends the turn.

The question of a conversation's turn is stored already; that of a direct chat's turn comes with the request. A completion
has all its messages in the request, and nothing of it is stored.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from bff.auth.identity import Identity
from bff.db.direct_chat import MAX_STORED_CHARACTERS, DirectChat
from bff.db.models import Message, StoredResponse
from bff.db.replies import Replies
from bff.db.responses import ResponseStore
from bff.engine.agents.base import MAX_REPLY_CHARACTERS, Agent, Ending, ReplyBuffer, open_stream
from bff.engine.agents.registry import DEFAULT_AGENT
from bff.errors import Interrupted, InvalidRequest, UpstreamUnavailable
from bff.http.waiting import Waiter
from bff.upstream import events, output
from bff.upstream.messages import ChatMessage
from bff.upstream.output import OutputBlock, OutputBlocks, join_surrogates

DATABASE_SECONDS: Final = 30.0
"""How long a turn retries while the database is unavailable."""
RETRY_SECONDS: Final = 0.25
MAX_DIRECT_CHARACTERS: Final = 16 * 1024 * 1024
"""Characters of a direct chat's reply. Events and logs have bounds of their own."""
LANGUAGE: Final = "en"
"""The default language of direct replies."""

Contents = Iterator[dict[str, Any] | None]
"""The JSON of the engine's events; None while there is none."""
T = TypeVar("T")


class ConversationTurn(NamedTuple):
    identity: Identity
    conversation_id: UUID
    question_id: UUID
    agent_id: str
    regenerate: str
    started: bool
    """An earlier worker had begun the output and may have stored it: it must not be generated again."""

    @property
    def key(self) -> tuple[str, UUID, UUID]:
        return self.identity.owner, self.conversation_id, self.question_id


class DirectTurn(NamedTuple):
    identity: Identity
    turn_id: str
    question: str
    spoken: bool
    audio_url_prefix: str
    started: bool


class Completion(NamedTuple):
    identity: Identity
    agent_id: str
    messages: Sequence[ChatMessage]
    options: Mapping[str, Any]


class ResponseTurn(NamedTuple):
    """A stored response of /v1/responses."""

    identity: Identity
    response_id: UUID
    started: bool

    @property
    def key(self) -> tuple[str, UUID]:
        return self.identity.owner, self.response_id


class Stores(NamedTuple):
    replies: Replies
    direct: DirectChat
    responses: ResponseStore


class Turns:
    def __init__(self, stores: Stores, agents: Mapping[str, Agent], direct_agent: Agent) -> None:
        self._replies = stores.replies
        self._responses = stores.responses
        self.direct_chat = stores.direct
        self._agents = agents
        self._direct_agent = direct_agent

    # These yield the engine's events. The reply is stored once `waiter` has confirmed that it is still needed. They raise
    # InvalidRequest, NotFound, Interrupted, what the agent raises, and UpstreamUnavailable without a database.

    def conversation(self, turn: ConversationTurn, waiter: Waiter) -> Contents:
        agent = self._agent(turn.agent_id)
        task = yield from _retry(lambda: self._replies.task(*turn.key, turn.regenerate), waiter)
        if task.reply is not None:
            if not turn.started:  # Another run stored it after this one was requested: this one's readers have no text yet.
                yield _progress(task.reply.content)
            yield _complete(task.reply, Ending(task.reply.truncated))
            return
        _check_not_started(turn.started)
        text, ending = yield from _reply(agent, task.history, turn.identity, waiter)
        yield from _confirm(waiter)
        reply = yield from _retry(lambda: self._store(turn, task.version, text, truncated=ending.truncated), waiter)
        _check_stored(reply, text)
        yield _complete(reply, ending)

    def direct(self, turn: DirectTurn, waiter: Waiter) -> Contents:
        owner, direct = turn.identity.owner, self.direct_chat
        task = yield from _retry(lambda: direct.task(owner, turn.turn_id, turn.question), waiter)
        if task.reply is not None:
            yield _complete_direct(turn, task.reply, task.reply.content, task.language, Ending(task.reply.truncated))
            return
        _check_not_started(turn.started)
        text, ending = yield from _reply(self._direct_agent, task.history, turn.identity, waiter, MAX_DIRECT_CHARACTERS)
        yield from _confirm(waiter)
        store = partial(direct.store, owner, turn.turn_id, turn.question, text)
        reply = yield from _retry(lambda: store(spoken=turn.spoken, truncated=ending.truncated), waiter)
        _check_stored(reply, text[:MAX_STORED_CHARACTERS])
        yield _complete_direct(turn, reply, text, task.language, ending)

    def completion(self, turn: Completion, waiter: Waiter) -> Contents:
        agent = self._agent(turn.agent_id)
        text, ending = yield from _reply(agent, turn.messages, turn.identity, waiter, options=turn.options)
        yield {"type": "complete", "response": _response(text, None, ending)}

    def response(self, turn: ResponseTurn, waiter: Waiter) -> Contents:
        task = yield from _retry(lambda: self._responses.task(*turn.key), waiter)
        if task.row.reply_id is not None:
            yield from () if turn.started else output.as_events(task.blocks)
            yield _complete_response(task.row, task.blocks)
            return
        _check_not_started(turn.started)
        collected, row = OutputBlocks(), task.row
        reply = _reply(self._agent(row.agent_id), task.history, turn.identity, waiter, options=row.options)
        _, ending = yield from collected.collect(reply)
        yield from _confirm(waiter)
        finish = partial(self._responses.finish, *turn.key, collected.all(), ending.usage, truncated=ending.truncated)
        yield _complete_response((yield from _retry(finish, waiter)), collected.all())

    def end_response(self, turn: ResponseTurn, status: str, error_code: str) -> None:
        """Records how a response without output ended. Raises NotFound, UpstreamUnavailable."""
        self._responses.end(*turn.key, status, error_code)

    def keep_stopped(self, turn: ConversationTurn, text: str) -> Message:
        """Stores the output of a stopped reply. Raises NotFound, UpstreamUnavailable."""
        version = self._replies.task(*turn.key, turn.regenerate).version
        return self._store(turn, version, join_surrogates(text))

    def _store(self, turn: ConversationTurn, version: int, text: str, *, truncated: bool = False) -> Message:
        return self._replies.store(*turn.key, version, turn.regenerate, text, truncated=truncated)

    def _agent(self, agent_id: str) -> Agent:
        agent = self._agents.get(agent_id or DEFAULT_AGENT)
        if agent is None:
            raise InvalidRequest("agentId: is not listed by GET /api/agents.")
        return agent


def _check_not_started(started: bool) -> None:
    if started:
        raise Interrupted(detail="the worker died before the reply was stored")


def _check_stored(reply: Message, text: str) -> None:
    """Raises Interrupted if an earlier run, whose worker was thought dead, has stored its own reply in the meantime."""
    if reply.content != text:
        raise Interrupted(detail="another run stored its reply first")


def _reply(
    agent: Agent,
    history: Sequence[ChatMessage],
    identity: Identity,
    waiter: Waiter,
    max_characters: int = MAX_REPLY_CHARACTERS,
    options: Mapping[str, Any] | None = None,
) -> Generator[dict[str, Any] | None, None, tuple[str, Ending]]:
    """Yields an event for each piece and returns the reply's text and its ending. Raises AnswerIncomplete for a blank reply."""
    buffer = ReplyBuffer(max_characters)
    pieces = open_stream(agent, history, identity, waiter, options or {})
    try:
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                return join_surrogates(buffer.text()), end.value or Ending()
            if isinstance(piece, Mapping):
                yield dict(piece)
            elif text := (piece or "").replace("\0", ""):
                buffer.add(text)
                yield _progress(text)
            yield None
    finally:
        if (close := getattr(pieces, "close", None)) is not None:
            close()


def _confirm(waiter: Waiter) -> Generator[None, None, None]:
    yield None  # Sends the output first.
    yield from waiter.confirm_connected()


def _retry(call: Callable[[], T], waiter: Waiter) -> Generator[None, None, T]:
    deadline = monotonic() + DATABASE_SECONDS
    while True:
        try:
            return call()
        except UpstreamUnavailable:
            if monotonic() >= deadline:
                raise
        yield from waiter.sleep(RETRY_SECONDS)


def _progress(text: str) -> dict[str, Any]:
    return {"type": "progress", "text": text}


def _complete(reply: Message, ending: Ending) -> dict[str, Any]:
    return {"type": "complete", "response": _response(reply.content, None, ending) | {"message_id": str(reply.id)}}


def _complete_direct(turn: DirectTurn, reply: Message, text: str, language: str, ending: Ending) -> dict[str, Any]:
    voice = {"voice_audio_url": f"{turn.audio_url_prefix}{reply.id}.wav"} if turn.spoken else {}
    return {"type": "complete", "response": _response(text, language or LANGUAGE, ending) | voice}


def _complete_response(row: StoredResponse, blocks: Sequence[OutputBlock]) -> dict[str, Any]:
    text = "".join(block.text for block in blocks if block.kind == "text")
    ending = Ending(row.status == "incomplete", row.usage)
    completed_at = None if row.completed_at is None else int(row.completed_at.timestamp())
    return {"type": "complete", "response": _response(text, None, ending) | {"completed_at": completed_at}}


def _response(text: str, language: str | None, ending: Ending) -> dict[str, Any]:
    usage = {"usage": dict(ending.usage)} if ending.usage else {}
    return events.response([text], language, truncated=ending.truncated) | usage
