"""A reader of one reply that reconnects as EventSource and sse.js do, over any number of restarts of the server."""

import json
import random
from threading import Event as Flag
from time import monotonic
from typing import Final

from bff.api.cli.conformance.client import ClientError, Response
from bff.api.cli.conformance.outcomes import Failed
from bff.api.cli.conformance.sse import HEARTBEAT, TERMINAL, Event, EventStream
from bff.api.cli.conformance.target import CHAT, JSON, Target, User

MIN_BACKOFF: Final = 0.1
MAX_BACKOFF: Final = 1.0
GONE: Final = frozenset({404, 410})


class Reader:
    """`follow` is run in a thread; the attributes are read after it."""

    def __init__(self, target: Target, user: User, deadline: float, message_id: str = "") -> None:
        """`deadline`: when it gives up, monotonic. `message_id`: of a reply that another reader has started."""
        self.message_id = message_id
        self.events: list[Event] = []
        """Of all connections, without heartbeats."""
        self.interruptions = 0
        """Connections that ended without a terminal event, and refused ones."""
        self.refusal = 0
        """The status that ended it, if one did."""
        self.problem = ""
        """What was wrong with a stream, if anything was."""
        self.has_started = Flag()
        """Set once the message id is known, or when the reader has given up."""
        self._target = target
        self._user = user
        self._deadline = deadline
        self._backoff = MIN_BACKOFF
        self._paused = Flag()

    @property
    def end(self) -> Event | None:
        return next((event for event in self.events if event.type in TERMINAL), None)

    @property
    def runs(self) -> list[list[Event]]:
        """The events, split at each `restart`, which invalidates those before it."""
        runs: list[list[Event]] = [[]]
        for event in self.events:
            if event.type == "restart":
                runs.append([])
            else:
                runs[-1].append(event)
        return runs

    def follow(self, message: str = "", key: str = "") -> None:
        """Sends the message unless its id is known, and reads to the end of the reply."""
        body = json.dumps({"message": message}).encode()
        try:
            while self.end is None and not self.refusal and monotonic() < self._deadline:
                self._connect(body, key)
        finally:
            self.has_started.set()

    def _connect(self, body: bytes, key: str) -> None:
        try:
            with self._open(body, key) as response:
                self._use(response)
        except (ClientError, Failed):
            self._pause(0.0)

    def _open(self, body: bytes, key: str) -> Response:
        seconds = max(0.1, self._deadline - monotonic())
        if not self.message_id:
            headers = {**JSON, "Idempotency-Key": key, "X-Chat-Resume": "1"}
            return self._user.request("POST", CHAT, body, headers, seconds=seconds)
        last = next((event.id for event in reversed(self.events) if event.id), "")
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
        return self._user.request("GET", f"{CHAT}/{self.message_id}", headers=headers, seconds=seconds)

    def _use(self, response: Response) -> None:
        if response.status == 200:
            self._read(EventStream(response, monotonic()))
        elif response.status == 429 or response.status >= 500:
            after = response.header("retry-after")
            self._pause(float(after) if after.isdecimal() else 0.0)
        else:
            self.refusal = response.status

    def _read(self, stream: EventStream) -> None:
        """To its end, also after the terminal event."""
        self.message_id = stream.message_id or self.message_id
        if self.message_id:
            self.has_started.set()
        count = 0
        try:
            while stream.read_some(self._deadline):
                count = self._add(stream, count)
        except ClientError:
            pass  # The connection broke: it reconnects unless the reply has ended.
        if self.end is None:
            self._pause(0.0)
        elif stream.rest:
            self.problem = f"after the end come {stream.rest[:40]!r}"

    def _add(self, stream: EventStream, count: int) -> int:
        """Adds the events that are new since `count`; returns how many the stream has."""
        events = [event for event in stream.events if event.type != HEARTBEAT]
        if events[count:]:
            self.events += events[count:]
            self._backoff = MIN_BACKOFF
        return len(events)

    def _pause(self, seconds: float) -> None:
        """Before it reconnects: what the server says, or exponential backoff with jitter."""
        self.interruptions += 1
        self._backoff = min(MAX_BACKOFF, self._backoff * 2)
        jitter = random.uniform(0, self._backoff)  # noqa: S311 - no secret
        self._paused.wait(min(MAX_BACKOFF, seconds) + jitter)
