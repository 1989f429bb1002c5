"""Client of the broker: enqueues messages, follows and stops their replies, and reads the queue."""

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import quote

from bff import errors
from bff.auth.identity import Identity
from bff.errors import UpstreamError, UpstreamFailure, UpstreamTimeout, UpstreamUnavailable
from bff.http import tracing
from bff.http.sse import Event
from bff.http.waiting import Waiter
from bff.ops import metrics
from bff.upstream import http
from bff.upstream.broker_errors import BUNDLED_CODES, EXTERNAL_CODES, retryable, to_chat_error
from bff.upstream.http import EventSource, Response, Session
from bff.upstream.message_ids import MESSAGE_ID
from bff.upstream.reconnect import ReconnectingReply, Reply
from bff.upstream.services import CHECK_SECONDS, COALESCE_SECONDS, Service, Timeouts


class Receipt(NamedTuple):
    message_id: str
    position: int


class Run(NamedTuple):
    message_id: str
    scope: str
    key: str
    stopping: bool
    """Whether a stop was requested; the run ends soon."""
    is_running: bool
    """False while it waits."""


class Runs(NamedTuple):
    active: list[Run]
    located: str | None
    """The message whose log contains the requested event."""


class ActiveMessage(NamedTuple):
    """A message that waits or runs."""

    message_id: str
    state: str
    position: int
    chat_id: str | None
    """The client's id of its chat; "" if it has none, None if the broker does not keep such ids."""


class Occupancy(NamedTuple):
    """One user's queue in a broker that does not number its events."""

    current: str | None
    """The message being processed, "" if the broker does not name it; None for none."""
    waiting: int


class BrokerClient:
    """Enqueues messages and follows their replies.

    `follow` and `resume` need a broker that numbers its events; see unnumbered.py for others.
    """

    def __init__(
        self,
        service: Service,
        session: Session,
        timeouts: Timeouts,
        *,
        client_id: str,
        max_event_bytes: int,
        survives_restart: bool,
        is_bundled: bool,
        runs_in_process: bool = False,
    ) -> None:
        """`is_bundled`: it is the bundled broker, in this process."""
        self._service = service
        self._session = session
        self._timeouts = timeouts
        self._client_id = client_id
        self._max_event_bytes = max_event_bytes
        self.survives_restart = survives_restart
        """Whether replies continue in another process, or after a restart, when this process ends."""
        self.runs_in_process = runs_in_process
        """Whether replies run in this process only, until it ends."""
        self._accepted_codes = BUNDLED_CODES if is_bundled else EXTERNAL_CODES
        self._numbers_events: bool | None = True if is_bundled else None

    def open_deadline(self) -> float:
        """The moment (monotonic) by which a message that is sent now must be enqueued and its stream open."""
        return monotonic() + self._timeouts.open

    def enqueue(self, identity: Identity, content: Mapping[str, Any], deadline: float, waiter: Waiter | None = None) -> Receipt:
        """`content`: the message, and options of the bundled broker: on_busy, on_disconnect, group, ….

        Raises an UpstreamFailure; from the bundled broker also Busy, Expired, IdempotencyConflict, TooManyRequests.
        """
        body = {**content, "user_id": identity.user_id, "org_id": identity.org, "client_id": self._client_id}
        with metrics.timed(metrics.ENQUEUE), retryable(UpstreamTimeout):
            response = self._send("POST", "/api/v1/message", deadline, body=body, waiter=waiter)
            content = http.read_json(response, deadline)
        message_id, position = content.get("message_id"), content.get("queue_position")
        if not isinstance(message_id, str) or not MESSAGE_ID.fullmatch(message_id):
            raise UpstreamError(detail="the broker's response has no message_id")
        return Receipt(message_id, position if type(position) is int else 1)

    def follow(self, user_id: str, message_id: str, deadline: float) -> Reply:
        """Opens the stream of a message that was just enqueued.

        Raises an UpstreamFailure; from the bundled broker also NotFound, Expired.
        """
        reopen = partial(self._open, user_id, message_id)
        with retryable(UpstreamFailure):
            return ReconnectingReply(reopen, reopen("", deadline, None))

    def resume(self, user_id: str, message_id: str, deadline: float, after: str, *, on_disconnect: str = "") -> Reply | None:
        """Follows a message after the event id `after`; from the start if that is "".

        None when there is nothing left to read. Raises an UpstreamFailure; from the bundled broker also NotFound, Expired.
        """
        params = {"on_disconnect": on_disconnect} if on_disconnect else None
        with retryable(UpstreamFailure):
            source = self._open(user_id, message_id, after, deadline, params=params)
        reopen = partial(self._open, user_id, message_id)
        return ReconnectingReply(reopen, source, after) if source is not None else None

    def open_stream(self, user_id: str, message_id: str, deadline: float, waiter: Waiter) -> EventSource:
        """The only stream of a message, from a broker that does not number its events. Raises an UpstreamFailure."""
        with retryable(UpstreamFailure):
            source = self._open(user_id, message_id, "", deadline, waiter)
        if source is None:
            raise UpstreamError(detail="the broker has no stream for a message that was just enqueued")
        return source

    def numbers_events(self, user_id: str) -> bool:
        """Whether the broker numbers its events, so that streams can be resumed. Its queue's format shows it; cached.

        Any user's queue will do. Raises an UpstreamFailure while the broker is unreachable.
        """
        if self._numbers_events is None:
            with retryable(UpstreamTimeout):
                self._numbers_events = "messages" in self._queue(user_id, self.open_deadline())
        return self._numbers_events

    def occupancy(self, user_id: str) -> Occupancy:
        """Raises an UpstreamFailure."""
        content = self._queue(user_id, self.open_deadline())
        current, waiting = content.get("current_message_id"), content.get("queue_length")
        busy = content.get("is_processing") is True
        return Occupancy(str(current or "") if busy or current else None, waiting if type(waiting) is int else 0)

    def stop(self, user_id: str, message_id: str) -> None:
        """Raises an UpstreamFailure, NotFound."""
        self._delete(user_id, message_id)

    def cancel_if_no_readers(self, user_id: str, message_id: str) -> None:
        """Ends a message of the bundled broker that has no readers, if it was enqueued with `on_disconnect=cancel`.

        Raises an UpstreamFailure, NotFound.
        """
        self._delete(user_id, message_id, {"if": "unread"})

    def runs(self, user_id: str, group: str, event_id: str = "") -> Runs:
        """The messages of a user's group that wait or run, and whose log contains `event_id`. Bundled broker only.

        Raises an UpstreamFailure.
        """
        deadline = self.open_deadline()
        params = {"group": group} | ({"event_id": event_id} if event_id else {})
        content = http.read_json(self._send("GET", _queue_path(user_id), deadline, params=params), deadline)
        return Runs([_run(run) for run in content["messages"]], content.get("located"))

    def queue_positions(self, user_id: str) -> list[ActiveMessage]:
        """The user's messages that wait or run, in order. Raises an UpstreamFailure, or TooManyRequests."""
        messages = self._queue(user_id, self.open_deadline()).get("messages")
        if not isinstance(messages, list):
            raise UpstreamError(detail="the broker's queue has no messages")
        return [_active_message(message) for message in messages]

    def find(self, user_id: str, client_message_id: str) -> str | None:
        """The message that the user sent to direct chat with this id of its client; None if the broker knows none.

        Raises an UpstreamFailure.
        """
        found = self._queue(user_id, self.open_deadline(), {"client_message_id": client_message_id}).get("found")
        return found if isinstance(found, str) and MESSAGE_ID.fullmatch(found) else None

    def stored_events(self, user_id: str, message_id: str, waiter: Waiter) -> Iterator[Event | None]:
        """The events that a message's log has now. Bundled broker only. Raises an UpstreamFailure, NotFound, Expired."""
        source = self._open(user_id, message_id, "", self.open_deadline(), waiter, params={"wait": "0"})
        if source is not None:
            with contextlib.closing(source):
                yield from source.events(waiter)

    def check(self) -> None:
        """Raises an UpstreamFailure if the broker is unreachable or reports that it is not healthy."""
        deadline = monotonic() + CHECK_SECONDS
        status = http.read_json(self._send("GET", "/health", deadline), deadline).get("status")
        if status not in {"healthy", "degraded"}:
            raise UpstreamUnavailable(detail=f"the broker is {status}")

    def webhooks(self) -> list[dict[str, Any]]:
        """The webhooks that wait or have failed. Bundled broker only. Raises an UpstreamFailure."""
        deadline = self.open_deadline()
        entries: list[dict[str, Any]] = http.read_json(self._send("GET", "/api/v1/webhooks", deadline), deadline)["webhooks"]
        return entries

    def send_webhook(self, webhook_id: str) -> None:
        """Has it sent again. Bundled broker only. Raises an UpstreamFailure, NotFound."""
        path = f"/api/v1/webhooks/{quote(webhook_id, safe='')}/send"
        self._send("POST", path, self.open_deadline()).close()

    def _queue(self, user_id: str, deadline: float, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        return http.read_json(self._send("GET", _queue_path(user_id), deadline, params=params), deadline)

    def _delete(self, user_id: str, message_id: str, params: Mapping[str, str] | None = None) -> None:
        params = {"user_id": user_id, **(params or {})}
        with contextlib.suppress(errors.Expired):  # It has ended long ago.
            self._send("DELETE", f"/api/v1/message/{message_id}", self.open_deadline(), params=params).close()

    def _open(
        self,
        user_id: str,
        message_id: str,
        after: str,
        deadline: float,
        waiter: Waiter | None = None,
        params: Mapping[str, str] | None = None,
    ) -> EventSource | None:
        """None when there is nothing left to read after `after`."""
        headers: dict[str, str | bytes] = {"Accept": "text/event-stream"}
        if after:
            headers["Last-Event-ID"] = after.encode()  # http.client encodes a str as Latin-1.
        params = {"user_id": user_id, "message_id": message_id, **(params or {})}
        response = self._send("GET", "/api/v1/stream", deadline, headers=headers, params=params, waiter=waiter)
        if response.status_code == 204:
            response.close()
            return None
        return EventSource(response, self._timeouts.silence, self._max_event_bytes, COALESCE_SECONDS)

    def _send(
        self, method: str, path: str, deadline: float, headers: Mapping[str, str | bytes] | None = None, **parts: Any
    ) -> Response:
        with metrics.count_failures("broker"):
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
                raise to_chat_error(response, deadline, self._accepted_codes)
            return response


def _queue_path(user_id: str) -> str:
    return f"/api/v1/queue/{quote(user_id, safe='')}"


def _run(entry: Mapping[str, Any]) -> Run:
    is_running = entry["state"] == "running"
    return Run(entry["message_id"], entry["run_scope"], entry["run_key"], entry["stopping"], is_running)


def _active_message(message: Any) -> ActiveMessage:
    fields = ("message_id", "state", "position")
    if not isinstance(message, dict) or not all(isinstance(message.get(name), str | int) for name in fields):
        raise UpstreamError(detail="the broker's queue has an invalid message")
    chat_id = message.get("chat_id")
    message_id, state, position = (message[name] for name in fields)
    return ActiveMessage(str(message_id), state, position, chat_id if isinstance(chat_id, str) else None)
