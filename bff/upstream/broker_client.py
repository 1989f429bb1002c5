"""The broker, by what it means to us: leave a message, follow its answer, stop it, ask what waits."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from time import monotonic
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from bff import errors
from bff.auth.identity import Identity
from bff.errors import (
    BY_CODE,
    ChatError,
    StorageUnavailable,
    UpstreamError,
    UpstreamFailure,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from bff.http import tracing
from bff.http.waiting import Waiter
from bff.ops import metrics
from bff.upstream import http
from bff.upstream.http import EventSource, Response, Session
from bff.upstream.message_ids import MESSAGE_ID
from bff.upstream.reconnect import ReconnectingReply, Reply
from bff.upstream.services import CHECK_SECONDS, JOIN_SECONDS, Service, Timeouts

RETRY_SECONDS: Final = 2
"""After which an answer whose stream could not be opened is worth asking for again."""
REFUSALS: Final = (
    errors.InvalidRequest,
    errors.NotFound,
    errors.Busy,
    errors.Expired,
    errors.IdempotencyConflict,
    errors.TooManyRequests,
)
"""What a broker like ours may say of a request, in `code`; anybody else's 404 is a wrong address."""
OWN_REFUSALS: Final = (
    *REFUSALS,
    errors.ServerFull,
    errors.ServerRestarting,
    UpstreamError,
    UpstreamUnavailable,
    UpstreamTimeout,
)
"""What the bundled one says besides, of itself and of who is behind it."""


class Receipt(NamedTuple):
    message_id: str
    position: int


class Run(NamedTuple):
    message_id: str
    scope: str
    key: str
    stopping: bool
    """Whether it was told to stop: then it is as good as over."""


class Runs(NamedTuple):
    active: list[Run]
    located: str | None
    """The message whose log holds the event that was asked for."""


class Occupancy(NamedTuple):
    """What a broker that does not number its events has of one user."""

    current: str | None
    """The message that it answers, "" where it does not say which; None for none."""
    waiting: int


class BrokerClient:
    """Leaves messages with the broker and follows their answers.

    What follows an answer is for a broker that numbers its events; see unnumbered.py for others.
    """

    def __init__(
        self,
        service: Service,
        session: Session,
        timeouts: Timeouts,
        *,
        client_id: str,
        max_event_bytes: int,
        outlives_us: bool,
        is_ours: bool,
        answers_here: bool = False,
    ) -> None:
        """`is_ours`: it is the bundled one, in this process. `answers_here`: it has no other process to answer meanwhile."""
        self._service = service
        self._session = session
        self._timeouts = timeouts
        self._client_id = client_id
        self._max_event_bytes = max_event_bytes
        self.outlives_us = outlives_us
        """Whether another process can go on with an answer once this one has gone."""
        self.answers_here = answers_here
        """Whether what runs goes on in this process until it is gone."""
        self._refusals = OWN_REFUSALS if is_ours else REFUSALS
        self._numbered: bool | None = True if is_ours else None

    def open_deadline(self) -> float:
        """The moment (monotonic) by which a message is left and its stream open, if both begin now."""
        return monotonic() + self._timeouts.open

    def enqueue(self, identity: Identity, content: Mapping[str, Any], deadline: float, waiter: Waiter | None = None) -> Receipt:
        """`content`: the message, and what only our own broker understands: on_busy, on_disconnect, group, ….

        Raises an UpstreamFailure, or what our own broker refuses: Busy, Expired, IdempotencyConflict, TooManyRequests.
        """
        body = {**content, "user_id": identity.user_id, "org_id": identity.org, "client_id": self._client_id}
        with metrics.timed(metrics.ENQUEUE), _worth_a_retry(UpstreamTimeout):
            response = self._send("POST", "/api/v1/message", deadline, body=body, waiter=waiter)
            content = http.read_json(response, deadline)
        message_id, position = content.get("message_id"), content.get("queue_position")
        if not isinstance(message_id, str) or not MESSAGE_ID.fullmatch(message_id):
            raise UpstreamError(detail="no message_id in the broker's answer")
        return Receipt(message_id, position if type(position) is int else 1)

    def follow(self, user_id: str, message_id: str, deadline: float) -> Reply:
        """Opens the stream of a message that was just left.

        Raises an UpstreamFailure, or NotFound, Expired from our own broker.
        """
        reopen = partial(self._open, user_id, message_id)
        with _worth_a_retry(UpstreamFailure):
            return ReconnectingReply(reopen, reopen("", deadline, None))

    def resume(self, user_id: str, message_id: str, deadline: float, after: str, *, on_disconnect: str = "") -> Reply | None:
        """Follows a message again, after the event id `after`, from the start where that is "".

        None when there is nothing left to read. Raises an UpstreamFailure; NotFound, Expired from our own broker.
        """
        with _worth_a_retry(UpstreamFailure):
            source = self._open(user_id, message_id, after, deadline, on_disconnect=on_disconnect)
        reopen = partial(self._open, user_id, message_id)
        return ReconnectingReply(reopen, source, after) if source is not None else None

    def open_stream(self, user_id: str, message_id: str, deadline: float, waiter: Waiter) -> EventSource:
        """A message's only stream, of a broker that does not number its events. Raises an UpstreamFailure."""
        with _worth_a_retry(UpstreamFailure):
            source = self._open(user_id, message_id, "", deadline, waiter)
        if source is None:
            raise UpstreamError(detail="the broker has no stream of a message that was just left")
        return source

    def numbers_events(self, user_id: str) -> bool:
        """Whether the broker numbers its events, so that they can be read again: its queue shows it, asked once.

        Any user's queue shows it. Raises an UpstreamFailure while the broker cannot be asked.
        """
        if self._numbered is None:
            self._numbered = "messages" in self._queue(user_id, min(self.open_deadline(), monotonic() + CHECK_SECONDS))
        return self._numbered

    def occupancy(self, user_id: str) -> Occupancy:
        """What the broker has of the user. Raises an UpstreamFailure."""
        content = self._queue(user_id, self.open_deadline())
        current, waiting = content.get("current_message_id"), content.get("queue_length")
        busy = content.get("is_processing") is True
        return Occupancy(str(current or "") if busy or current else None, waiting if type(waiting) is int else 0)

    def stop(self, user_id: str, message_id: str) -> None:
        """Raises an UpstreamFailure, NotFound."""
        with contextlib.suppress(errors.Expired):  # Long over.
            path = f"/api/v1/message/{message_id}"
            self._send("DELETE", path, self.open_deadline(), params={"user_id": user_id}).close()

    def cancel_if_no_readers(self, user_id: str, message_id: str) -> None:
        """Of our own broker: ends, at once, what is for its readers only and has none. Raises an UpstreamFailure, NotFound."""
        with contextlib.suppress(errors.Expired):
            params = {"user_id": user_id, "if": "unread"}
            self._send("DELETE", f"/api/v1/message/{message_id}", self.open_deadline(), params=params).close()

    def runs(self, user_id: str, group: str, event_id: str = "") -> Runs:
        """Of our own broker: what runs or waits in one of the user's groups, and whose log holds the event `event_id`.

        Raises an UpstreamFailure.
        """
        deadline = self.open_deadline()
        params = {"group": group} | ({"event_id": event_id} if event_id else {})
        content = http.read_json(self._send("GET", _queue_of(user_id), deadline, params=params), deadline)
        runs = [Run(run["message_id"], run["run_scope"], run["run_key"], run["stopping"]) for run in content["messages"]]
        return Runs(runs, content.get("located"))

    def places(self, user_id: str) -> list[dict[str, Any]]:
        """The user's messages that wait or run: message_id, state, position each.

        Raises an UpstreamFailure, or TooManyRequests.
        """
        messages = self._queue(user_id, self.open_deadline()).get("messages")
        if not isinstance(messages, list):
            raise UpstreamError(detail="a queue without messages")
        return [_place(message) for message in messages]

    def check(self) -> None:
        """Raises an UpstreamFailure when the broker is not there, or says itself that it cannot work."""
        deadline = monotonic() + CHECK_SECONDS
        status = http.read_json(self._send("GET", "/health", deadline), deadline).get("status")
        if status not in {"healthy", "degraded"}:
            raise UpstreamUnavailable(detail=f"the broker is {status}")

    def _queue(self, user_id: str, deadline: float) -> dict[str, Any]:
        return http.read_json(self._send("GET", _queue_of(user_id), deadline), deadline)

    def _open(
        self,
        user_id: str,
        message_id: str,
        after: str,
        deadline: float,
        waiter: Waiter | None = None,
        on_disconnect: str = "",
    ) -> EventSource | None:
        """None when there is nothing left to read after `after`."""
        headers: dict[str, str | bytes] = {"Accept": "text/event-stream"}
        if after:
            headers["Last-Event-ID"] = after.encode()  # A text would be sent as Latin-1.
        query = {"user_id": user_id, "message_id": message_id} | ({"on_disconnect": on_disconnect} if on_disconnect else {})
        response = self._send("GET", "/api/v1/stream", deadline, headers=headers, params=query, waiter=waiter)
        if response.status_code == 204:
            response.close()
            return None
        return EventSource(response, self._timeouts.silence, self._max_event_bytes, JOIN_SECONDS)

    def _send(
        self, method: str, path: str, deadline: float, headers: Mapping[str, str | bytes] | None = None, **parts: Any
    ) -> Response:
        with metrics.failures("broker"):
            response = http.send(
                self._session,
                method,
                self._service.url + path,
                headers={"X-API-Key": self._service.key, **tracing.headers(), **(headers or {})},
                connect=self._timeouts.connect,
                deadline=deadline,
                **parts,
            )
            if response.status_code not in {200, 202, 204}:
                raise _refusal(response, deadline, self._refusals)
            return response


@contextlib.contextmanager
def _worth_a_retry(kind: type[UpstreamFailure]) -> Iterator[None]:
    """A failure of this kind says nothing of the message: it may have been left, and its answer goes on without a reader."""
    try:
        yield
    except kind as problem:
        problem.retry_after = problem.retry_after or RETRY_SECONDS
        raise


def _queue_of(user_id: str) -> str:
    return f"/api/v1/queue/{quote(user_id, safe='')}"


def _place(message: Any) -> dict[str, Any]:
    fields = ("message_id", "state", "position")
    if not isinstance(message, dict) or not all(isinstance(message.get(name), str | int) for name in fields):
        raise UpstreamError(detail="a message in the queue that is none")
    return {name: message[name] for name in fields}


def _refusal(response: Response, deadline: float, refusals: Collection[type[ChatError]]) -> ChatError:
    """What a broker's status means for the one who asked; the broker's own words stay here."""
    status = response.status_code
    seconds = http.retry_after(response, default=RETRY_SECONDS)
    asked_to_retry = "Retry-After" in response.headers
    try:
        content = http.read_json(response, deadline)
    except UpstreamFailure:
        content = {}
    kind = BY_CODE.get(code) if isinstance(code := content.get("code"), str) else None
    if kind is not None and kind in refusals and kind.status == status:
        message_id = content.get("message_id")
        return kind(
            retry_after=seconds if asked_to_retry else None,
            message_id=message_id if isinstance(message_id, str) and MESSAGE_ID.fullmatch(message_id) else "",
        )
    if status == 429:
        return errors.TooManyRequests(retry_after=seconds)
    if status == 503:
        return StorageUnavailable(detail="the broker answered 503", retry_after=seconds)
    return UpstreamError(detail=f"the broker answered {status}")
