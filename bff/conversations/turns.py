"""Question, reply, keep it: one agent's turn in a conversation, told as events.

A reply is kept when the agent has finished and its reader was still there. A reader that leaves stops the agent.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from time import monotonic
from typing import Any
from uuid import UUID

from bff.agents import Agent, Whole
from bff.conversations.claims import Claims, Question
from bff.conversations.schemas import StreamMessage
from bff.conversations.store import ConversationStore
from bff.errors import AnswerTimeout, ChatError, InternalError, Interrupted, InvalidRequest, ReaderLeft
from bff.identity import Identity
from bff.ops import hub
from bff.ops.hub import Watch
from bff.sse import Event

log = logging.getLogger("bff.requests")


class Turns:
    """Begins turns, and holds on to the claims of those that run in this process."""

    def __init__(
        self, store: ConversationStore, claims: Claims, agents: Mapping[str, Agent], default: str, answer_max_seconds: float
    ) -> None:
        self._store = store
        self._claims = claims
        self.agents = agents
        self._default = default
        self._answer_max_seconds = answer_max_seconds
        self._running: dict[UUID, Turn] = {}
        self._lock = threading.Lock()
        self._renewing = False

    def agent(self, agent_id: str | None) -> Agent:
        """Raises InvalidRequest."""
        agent = self.agents.get(agent_id or self._default)
        if agent is None:
            raise InvalidRequest("agentId: is none of GET /api/agents.")
        return agent

    def begin(
        self, identity: Identity, conversation_id: UUID, wish: StreamMessage, seen: UUID | None, request_id: str
    ) -> "Turn | None":
        """None when what is asked for is answered, or its answer `seen`. Raises Busy, InvalidRequest, NotFound."""
        conversation = self._store.get(identity.owner, conversation_id)
        agent = self.agent(wish.agent_id or conversation.agent_id)
        question = self._claims.claim(identity.owner, conversation_id, wish.message_id, wish.regenerate, seen)
        if question is None:
            return None
        turn = Turn(agent, identity, question, self._claims, self._answer_max_seconds, request_id, self._over)
        with self._lock:
            self._running[question.claim] = turn
            if not self._renewing:
                self._renewing = True
                threading.Thread(target=self._renew, name="claims", daemon=True).start()
        return turn

    def _over(self, claim: UUID) -> None:
        with self._lock:
            self._running.pop(claim, None)

    def _renew(self) -> None:
        """As long as a turn runs: all claims in one statement, since each stream for itself would be thousands."""
        while True:
            time.sleep(self._claims.seconds / 3)
            with self._lock:
                running = dict(self._running)
                if not running:
                    self._renewing = False
                    return
            try:
                held = self._claims.renew({claim: turn.conversation_id for claim, turn in running.items()})
            except ChatError as error:
                log.warning("claims could not be renewed", extra={"detail": error.detail})
            except Exception:
                log.exception("claims could not be renewed")
            else:
                for claim in running.keys() - held:
                    running[claim].lose()


class Turn:
    """One reply on its way to one reader. `close` once it is over, whatever happened; its end is one log line."""

    def __init__(
        self,
        agent: Agent,
        identity: Identity,
        question: Question,
        claims: Claims,
        seconds: float,
        request_id: str,
        over: Callable[[UUID], None],
    ) -> None:
        self._agent = agent
        self._identity = identity
        self._question = question
        self._claims = claims
        self._seconds = seconds
        self._request_id = request_id
        self._over = over
        self._reply: Generator[str | None] | None = None
        self._watch: Watch | None = None
        self._claimed = True
        self._lost = False
        self._log = _Log(request_id, question, agent.id)

    @property
    def conversation_id(self) -> UUID:
        return self._question.conversation_id

    def say(self, watch: Watch) -> Iterator[Event | None]:
        timer = hub.later(self._seconds, partial(watch.end, AnswerTimeout()))
        self._watch = watch
        try:
            if self._lost:
                raise Interrupted
            text = yield from self._tell(watch)
            yield None
            yield from watch.make_sure()
            message = self._claims.keep(self._question, _sound(text))
            self._claimed = False
            self._log.ended = "done"
            yield Event("done", json.dumps({"messageId": str(message.id)}), str(message.id))
        except ReaderLeft:
            raise
        except ChatError as problem:
            yield self._failure(problem)
        except Exception as error:
            log.exception("a reply broke", extra={"request_id": self._request_id})
            yield self._failure(InternalError(detail=type(error).__name__))
        finally:
            self._watch = None
            timer.cancel()

    def _tell(self, watch: Watch) -> Generator[Event | None, None, str]:
        """The reply, once all of it was said."""
        whole = Whole()
        self._reply = self._agent.stream(self._question.history, self._identity, watch)
        for piece in self._reply:
            if piece is None:
                yield None
            elif piece := piece.replace("\0", ""):
                whole.add(piece)
                self._log.token()
                yield Event("token", json.dumps({"token": piece}))
        return whole.text()

    def _failure(self, problem: ChatError) -> Event:
        self._log.ended, self._log.detail = problem.code, problem.detail
        self._stop()
        return Event("failure", json.dumps(problem.as_json(self._request_id)))

    def _stop(self) -> None:
        if self._reply is not None:
            self._reply.close()

    def lose(self) -> None:
        """The claim is another's by now, or the conversation was deleted. May be called from anywhere."""
        self._lost = True
        if (watch := self._watch) is not None:
            watch.end(Interrupted(detail="the claim was lost"))

    def close(self) -> None:
        try:
            self._stop()
        finally:
            self._over(self._question.claim)
            if self._claimed:
                self._release()
            self._log.write()

    def _release(self) -> None:
        try:
            self._claims.release(self._question)
        except ChatError as error:  # It ends by itself.
            log.warning("a claim could not be released", extra={"detail": error.detail})


class _Log:
    def __init__(self, request_id: str, question: Question, agent_id: str) -> None:
        self._fields: dict[str, Any] = {
            "request_id": request_id,
            "conversation_id": str(question.conversation_id),
            "agent_id": agent_id,
        }
        self._began = monotonic()
        self._first: int | None = None
        self._tokens = 0
        self.ended = "aborted"
        self.detail = ""

    def token(self) -> None:
        self._tokens += 1
        if self._first is None:
            self._first = self._milliseconds()

    def _milliseconds(self) -> int:
        return round((monotonic() - self._began) * 1000)

    def write(self) -> None:
        about = {"ended": self.ended, "events": self._tokens, "first_event_ms": self._first, "ms": self._milliseconds()}
        more = {"detail": self.detail} if self.detail else {}
        log.info("a reply in %s ended", self._fields["conversation_id"], extra=self._fields | about | more)


def _sound(text: str) -> str:
    """Some send the halves of a surrogate pair apart: joined they are a character, alone no text can hold them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
