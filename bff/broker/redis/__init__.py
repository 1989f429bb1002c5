"""The queue in Redis: any number of processes share it, and any of them may die.

One user's keys live together, and what changes them is a Lua script (lua/user/, whose first lines say which keys there
are). Who has something to be looked after stands in one sorted set, `chat:due`, by when: a worker takes the first one
that is due, puts it off by a lease, and then asks that user's queue what there is. So whoever dies in between only
delays the user until somebody else looks, and the reaper is no part of its own: it is the look after a lease's end.
"""

import json
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Final

from bff.broker import ends
from bff.broker.log import parsed
from bff.broker.queue import (
    LONG_ANSWER,
    MANY_WAITING,
    PAGE_EVENTS,
    Claim,
    Counts,
    Limits,
    Lost,
    Message,
    Page,
    Place,
    Receipt,
    Words,
)
from bff.broker.redis.due import Due
from bff.broker.redis.listening import Listener
from bff.broker.redis.readers import Readers
from bff.errors import Away, Busy, Expired, IdempotencyConflict, NotFound, ServerFull, TooLarge, TooManyRequests
from bff.ops import metrics
from bff.ops.redis import Client, Scripts, key_of, keys_of, translated
from bff.sse import Event

WORKER: Final = "chat:worker"
"""There while some worker sweeps."""
WORKER_SECONDS: Final = 5
LUA: Final = Path(__file__).parent / "lua"
CLAIMS_MOST: Final = 5
"""A message that takes its worker along each time is not tried for ever."""
WRITES_MOST: Final = 10_000
"""Claims of which a write is remembered that may have been done; some were given up."""
INTERRUPTED: Final = ends.interrupted()[1]
STOPPED: Final = ends.stopped()[1]

log = logging.getLogger(__name__)


class RedisQueue:
    def __init__(self, client: Client, limits: Limits = Limits(), lease: float = 10.0) -> None:  # noqa: B008 - frozen
        """`lease`: seconds for which a claim holds without a sign of life."""
        self._client = client
        self._limits = limits
        self._lease = str(int(lease * 1_000_000))
        self._keep = (str(int(limits.retention * 1000)), str(limits.log_bytes))
        self._user = Scripts(client, LUA / "user", prelude=(LUA / "user.lua").read_text(encoding="utf-8"))
        self._listener = Listener(client)
        self._due = Due(client, self._listener, self._lease)
        self._readers = Readers(client, limits.grace)
        self._writing: dict[tuple[str, int], str] = {}
        """The name of the write of a claim that may have been done or not."""

    def enqueue(self, message: Message, client_message_id: str | None, on_busy: str) -> Receipt:
        user = key_of(message.user_id)
        content = json.dumps(message.content, sort_keys=True)
        keys = [_q(user)] + ([f"{keys_of(user)}c:{_digest(client_message_id)}"] if client_message_id else [])
        facts = (message.id, message.user_id, content, message.size, int(message.cancel_unread), _digest(content))
        # If this process dies before it can say more, somebody looks all the same, for the message and for its readers.
        self._due.offer(user, self._lease)
        if message.cancel_unread:
            self._readers.expect(f"{user} {message.id}")
        said, *more = self._user.run("enqueue", keys, *facts, self._limits.depth_per_user, on_busy, message.trace)
        match said:
            case "conflict":
                raise IdempotencyConflict
            case "expired":
                raise Expired(message_id=more[0])
            case "busy":
                raise Busy
            case "many":
                raise TooManyRequests(MANY_WAITING)
            case "again":
                self._due.offer(user)
                return Receipt(more[0], more[1])
        with suppress(Away, ServerFull):  # It is kept, and somebody will look.
            if more[1]:
                self._due.offer(user)
        return Receipt(message.id, more[0])

    def claim(self, timeout: float) -> Claim | None:
        until = monotonic() + timeout
        while True:
            rung = self._due.rung()
            found = self._next()
            if isinstance(found, Claim):
                return found
            if monotonic() >= until:
                return None
            self._due.wait(rung, min(until - monotonic(), found))

    def _next(self) -> Claim | float:
        """A message, or the seconds until one may be there."""
        while True:
            taken = self._due.take()
            if isinstance(taken, float):
                return taken
            claim = self._look(*taken, self._lease)
            if claim is not None:
                return claim

    def _look(self, user: str, till: str, lease: str) -> Claim | None:
        said, *more = self._user.run("claim", [_q(user)], lease, CLAIMS_MOST, INTERRUPTED, STOPPED, *self._keep)
        match said:
            case "runs":
                self._due.settle(user, till, more[0])
                return None
            case "waits":
                self._due.offer(user)
                return None
            case "idle":
                _tell_reaped(more[0])
                self._due.settle(user, till)
                return None
        message_id, token, user_id, content, size, fleeting, kept, waited, reaped = more
        _tell_reaped(reaped)
        message = Message(message_id, user_id, json.loads(content), int(size), fleeting == "1", kept)
        return Claim(message, token, max(0, int(waited)) / 1_000_000)

    def renew(self, claim: Claim) -> bool:
        return self._write(claim, (), said=False) == "stop"

    def append(self, claim: Claim, words: Sequence[Words], *, said: bool = True) -> None:
        if words:
            self._write(claim, words, said=said)

    def _write(self, claim: Claim, words: Sequence[Words], *, said: bool) -> str:
        name = self._name(claim) if words else ""
        about = (claim.message.id, claim.token, self._lease, name, int(said), self._limits.log_bytes)
        answer: str = self._user.run("write", [_q(_user(claim))], *about, *_flat(words))
        if words:
            self._writing.pop(_of(claim), None)
        if answer == "lost":
            raise Lost
        if answer == "large":
            raise TooLarge(LONG_ANSWER)
        return answer

    def finish(self, claim: Claim, words: Sequence[Words]) -> None:
        about = (claim.message.id, claim.token, self._name(claim), *self._keep)
        self._end(claim, self._user.run("finish", [_q(_user(claim))], *about, *_flat(words)))

    def release(self, claim: Claim) -> None:
        about = (claim.message.id, claim.token, INTERRUPTED, STOPPED, *self._keep)
        self._end(claim, self._user.run("release", [_q(_user(claim))], *about))

    def _end(self, claim: Claim, answer: str | int) -> None:
        user = _user(claim)
        if answer:
            self._due.offer(user)  # Also of a lost one: it may be this call's own doing, whose answer was lost.
        else:
            self._tidy(user)
        self._writing.pop(_of(claim), None)
        if answer == "lost":
            raise Lost

    def _tidy(self, user: str) -> None:
        """Of whom nothing is left, there is nothing to look after."""
        self._look(user, self._due.put_off(user), lease="0")

    def _name(self, claim: Claim) -> str:
        """The same again until the write is known to be done: then repeating it does nothing."""
        name = self._writing.setdefault(_of(claim), secrets.token_hex(8))
        while len(self._writing) > WRITES_MOST:
            self._writing.pop(next(iter(self._writing)), None)
        return name

    def read(self, user_id: str, message_id: str, after: str) -> Page:
        number = parsed(after) if after else (0, 0)
        of_user = keys_of(key_of(user_id))
        if max(number) >= 2**63:
            number = (2**63 - 1, 0)  # Ids are no larger, there or here.
        with translated(), self._client.pipeline(transaction=False) as pipe:
            pipe.hget(f"{of_user}m:{message_id}", "state")  # First: if it says finished, the log is whole.
            pipe.xrange(f"{of_user}l:{message_id}", f"({number[0]}-{number[1]}" if after else "-", "+", PAGE_EVENTS)
            state, entries = pipe.execute()
        if state is None:
            raise NotFound
        if state == "finished" and not entries and not self._is_kept(f"{of_user}l:{message_id}"):
            raise Expired(message_id=message_id)
        more = len(entries) == PAGE_EVENTS
        return Page([Event(said["e"], said["d"], at) for at, said in entries], state == "finished" and not more, more)

    def _is_kept(self, log: str) -> bool:
        with translated():
            return bool(self._client.exists(log))

    @contextmanager
    def listen(self, user_id: str, message_id: str, wake: Callable[[], None]) -> Iterator[None]:
        answer = f"{key_of(user_id)} {message_id}"
        with self._readers.reading(answer), self._listener.hearing(f"chat:l:{message_id}", lambda _: wake()):
            yield

    def stop(self, user_id: str, message_id: str) -> None:
        self._stop(key_of(user_id), message_id)

    def _stop(self, user: str, message_id: str) -> None:
        match self._user.run("stop", [_q(user)], message_id, STOPPED, *self._keep):
            case "unknown":
                raise NotFound
            case "expired":
                raise Expired(message_id=message_id)
            case "last":
                self._tidy(user)

    def on_stop(self, tell: Callable[[str], None]) -> None:
        self._listener.hear("chat:stop", lambda message_id: tell(message_id) if message_id else None)

    def places(self, user_id: str) -> list[Place]:
        user = key_of(user_id)
        with translated(), self._client.pipeline() as pipe:
            pipe.hget(f"{keys_of(user)}run", "id")
            pipe.lrange(_q(user), 0, -1)
            running, waiting = pipe.execute()
        places = [Place(running, "running", 0)] if running else []
        return places + [Place(message_id, "queued", position) for position, message_id in enumerate(waiting, start=1)]

    def sweep(self) -> None:
        with suppress(ServerFull), translated():
            self._client.set(WORKER, "1", ex=WORKER_SECONDS)
        for answer in self._readers.unread():
            user, message_id = answer.split(" ", 1)
            with suppress(NotFound, Expired):  # One that was refused, or is long over.
                self._stop(user, message_id)
            self._readers.forget(answer)

    def is_worked(self) -> bool:
        with translated():
            return bool(self._client.exists(WORKER))

    def counts(self) -> Counts:
        return self._due.counts()

    def waiting(self) -> int:
        users = self._due.users()
        with translated(), self._client.pipeline(transaction=False) as pipe:
            for user in users:
                pipe.llen(_q(user))
            return sum(pipe.execute())

    def close(self) -> None:
        """For tests, which make many."""
        self._readers.close()
        self._listener.close()
        self._client.close()


def _tell_reaped(said: str) -> None:
    """Of a message whose worker died, what became of it and its id: see lua/user/claim.lua."""
    if said:
        outcome, _, message_id = said.partition(" ")
        metrics.REAPED.labels(outcome).inc()
        log.warning("the worker of message %s is gone: %s", message_id, outcome)


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _user(claim: Claim) -> str:
    return key_of(claim.message.user_id)


def _q(user: str) -> str:
    return f"{keys_of(user)}q"


def _of(claim: Claim) -> tuple[str, int]:
    return claim.message.id, claim.token


def _flat(words: Sequence[Words]) -> Iterator[str]:
    return (text for said in words for text in said)
