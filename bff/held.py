"""Answers of a broker that does not number its events: read once, to the end, and kept for this process's readers.

Such a broker allows one stream for each message. A second one would steal the answer, and closing the first would lose it
and hold up the user's next message. So a thread of its own reads it, whoever of the readers comes, leaves, or stops it.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from time import monotonic

from bff import events
from bff.errors import AnswerTimeout, ChatError, InternalError, NotFound, UpstreamError, detached
from bff.ops import hub
from bff.ops.hub import Watch
from bff.sse import Event, size_of
from bff.transport import EventSource


class Held:
    """One answer: what it has said so far, and whether it is over."""

    def __init__(self, user_id: str, message_id: str) -> None:
        self.user_id = user_id
        self.message_id = message_id
        self.over = False
        self.ended_at = 0.0
        self.size = 0
        self._said: list[Event] = []
        self._problem: ChatError | None = None
        self._readers: list[Callable[[], None]] = []

    def reader(self) -> "HeldReader":
        return HeldReader(self)

    def follow(self, watch: Watch) -> Iterator[Event | None]:
        """All of it, from the start. Raises what broke it."""
        told = 0
        self._readers.append(watch.wake)
        try:
            while True:
                over, said = self.over, self._said[told:]
                yield from said
                told += len(said)
                if over:
                    break
                yield None
                watch.wait()
        finally:
            self._readers.remove(watch.wake)
        if self._problem is not None:
            raise detached(self._problem)

    def say(self, event: Event) -> None:
        if not self.over:
            self._said.append(event)
            self.size += size_of(event.data)
            self._wake()

    def stop(self) -> None:
        """Ends it for its readers; the rest is read and dropped. Does nothing to one that is over."""
        self.say(events.stopped(self._text())._replace(event="message"))
        self.end()

    def end(self, problem: ChatError | None = None) -> None:
        """The first end counts."""
        if not self.over:
            self._problem = problem and detached(problem)
            self.ended_at = monotonic()
            self.over = True
            self._wake()

    def _text(self) -> str:
        return "".join(events.progress_text(event.data) for event in self._said)

    def _wake(self) -> None:
        for wake in list(self._readers):
            wake()


class HeldReader:
    """A held answer on its way to one reader; what it holds stays when the reader goes."""

    reconnects = 0
    unfinished = False

    def __init__(self, held: Held) -> None:
        self._held = held

    def events(self, watch: Watch) -> Iterator[Event | None]:
        return self._held.follow(watch)

    def close(self) -> None:
        """Nothing: the next reader may come."""


class HeldAnswers:
    """`most_bytes` bounds one answer, and all that are over together: then the oldest go."""

    def __init__(self, *, answer_max_seconds: float, retention_seconds: float, most_bytes: int) -> None:
        self._answer_max_seconds = answer_max_seconds
        self._retention_seconds = retention_seconds
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._answers: OrderedDict[str, Held] = OrderedDict()

    def adopt(self, user_id: str, message_id: str, source: EventSource) -> Held:
        """Reads `source` to its end in a thread of its own, and closes it."""
        held = Held(user_id, message_id)
        with ExitStack() as failed:
            failed.callback(source.close)
            threading.Thread(target=self._read, args=(held, source), name="held", daemon=True).start()
            failed.pop_all()
        with self._lock:
            self._sweep()
            self._answers[message_id] = held
        return held

    def find(self, user_id: str, message_id: str) -> Held | None:
        """Raises NotFound for somebody else's."""
        held = self._answers.get(message_id)
        if held is not None and held.user_id != user_id:
            raise NotFound
        return held

    def running(self, user_id: str) -> list[str]:
        with self._lock:
            return [held.message_id for held in self._answers.values() if held.user_id == user_id and not held.over]

    def _read(self, held: Held, source: EventSource) -> None:
        try:
            with closing(source), closing(hub.watch()) as watch:
                watch.due = monotonic() + self._answer_max_seconds
                self._keep(held, source.events(watch), watch.due)
            held.end()
        except ChatError as problem:
            held.end(problem)
        except Exception as error:  # noqa: BLE001 - told to the readers, whose streams log it
            held.end(InternalError(detail=repr(error)))

    def _keep(self, held: Held, said: Iterator[Event | None], until: float) -> None:
        for event in said:
            if event is not None:
                held.say(event)
            if held.size > self._most_bytes:
                held.end(UpstreamError(detail="an answer too long to be kept"))
            if monotonic() >= until:
                raise AnswerTimeout

    def _sweep(self) -> None:
        over = [held for held in self._answers.values() if held.over]
        size = sum(held.size for held in over)
        for held in over:
            if size <= self._most_bytes and monotonic() < held.ended_at + self._retention_seconds:
                return
            size -= held.size
            del self._answers[held.message_id]
