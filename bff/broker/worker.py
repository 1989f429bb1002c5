"""Answers queued messages: claims one, has the engine answer it, writes what the engine says into the message's log."""

import json
import logging
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from time import monotonic
from typing import Final

from bff import events
from bff.broker.queue import Claim, Lost, Queue, Words
from bff.errors import AnswerTimeout, ChatError, UpstreamError, UpstreamTimeout
from bff.ops import hub
from bff.ops.hub import Watch
from bff.transport import EventSource
from bff.upstream import EngineClient

CLAIM_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


class Stopped(Exception):
    """The user wished the answer to end here."""


class Worker:
    """At most `max_running` answers at once, each in a thread (a greenlet under gevent) of its own."""

    def __init__(self, queue: Queue, engine: EngineClient, *, max_running: int, answer_max_seconds: float) -> None:
        self._queue = queue
        self._engine = engine
        self._answer_max_seconds = answer_max_seconds
        self._free = threading.BoundedSemaphore(max_running)
        self._running: dict[str, Watch] = {}
        self._starting = threading.Lock()
        self._started = False
        self._sweep_at = 0.0
        queue.on_stop(self._stop)

    def start(self) -> None:
        """Idempotent. Not done at construction: a factory that is only looked at must not start threads."""
        with self._starting:
            if not self._started:
                self._started = True
                threading.Thread(target=self._work, name="worker", daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                self._claim_one()
            except Exception:
                log.exception("the worker stumbled")
                time.sleep(CLAIM_SECONDS)

    def _claim_one(self) -> None:
        if monotonic() >= self._sweep_at:
            self._sweep_at = monotonic() + CLAIM_SECONDS
            self._queue.sweep()
        if not self._free.acquire(timeout=CLAIM_SECONDS):
            return
        claim = self._queue.claim(CLAIM_SECONDS)
        if claim is None:
            self._free.release()
        else:
            threading.Thread(target=self._answer, args=(claim,), name="answer", daemon=True).start()

    def _stop(self, message_id: str) -> None:
        watch = self._running.get(message_id)
        if watch is not None:
            watch.end(Stopped())

    def _answer(self, claim: Claim) -> None:
        watch = hub.watch()
        self._running[claim.message.id] = watch
        try:
            if self._queue.is_stopping(claim):
                watch.end(Stopped())
            with closing(self._said(claim, watch)) as said:
                _Answering(self._queue, claim).run(said)
        except Lost:
            log.warning("message %s has another worker now", claim.message.id)
        except Exception:
            log.exception("message %s could not be answered", claim.message.id)
        finally:
            del self._running[claim.message.id]
            watch.close()
            self._free.release()

    def _said(self, claim: Claim, watch: Watch) -> Generator[Words | None, None, None]:
        """The engine's events, None where it paused. Raises Stopped, an UpstreamFailure, AnswerTimeout."""
        watch.due = monotonic() + self._answer_max_seconds
        with closing(self._opened(claim, watch)) as source:
            for event in source.events(watch):
                if event is not None:
                    yield event.event, event.data.replace("\n", " ")
                elif monotonic() >= watch.due:
                    raise AnswerTimeout
                else:
                    yield None

    def _opened(self, claim: Claim, watch: Watch) -> EventSource:
        try:
            return self._engine.stream(claim.message.content, watch)
        except UpstreamTimeout:
            if monotonic() >= watch.due:
                raise AnswerTimeout from None
            raise


class _Answering:
    """One answer on its way into its log."""

    def __init__(self, queue: Queue, claim: Claim) -> None:
        self._queue = queue
        self._claim = claim
        self._unwritten: list[Words] = [("processing", "")]
        self._text = ""

    def run(self, said: Iterator[Words | None]) -> None:
        try:
            self._write()
            if not self._take(said):
                raise UpstreamError(detail="the engine ended without an end")
        except Lost:
            raise
        except Stopped:
            self._finish(events.stopped(self._text).data)
        except ChatError as problem:
            log.warning("message %s: %s (%s)", self._claim.message.id, problem.code, problem.detail)
            self._finish(json.dumps({"type": "error", "error": str(problem), "code": problem.code}))
        except Exception as error:
            log.exception("message %s: the answer broke", self._claim.message.id)
            self._finish(json.dumps({"type": "error", "error": type(error).__name__, "code": "internal_error"}))

    def _take(self, said: Iterator[Words | None]) -> bool:
        """Whether the engine came to an end of its own; nothing it says afterwards counts."""
        for words in said:
            if words is None:
                self._write()
                continue
            kind = events.parsed_object(words[1]).get("type")
            if kind in {"complete", "error"}:
                self._finish(words[1])
                return True
            if isinstance(kind, str) and kind != "keepalive":  # Which says nothing, so nobody needs it in a log.
                self._unwritten.append(("message", words[1]))
                self._text += events.progress_text(words[1]) if kind == "progress" else ""
        return False

    def _write(self) -> None:
        words, self._unwritten = self._unwritten, []
        if words:
            self._queue.append(self._claim, words)

    def _finish(self, data: str) -> None:
        unwritten, self._unwritten = self._unwritten, []
        self._queue.finish(self._claim, [*unwritten, ("message", data)])
