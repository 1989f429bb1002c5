"""The broker, by what it means to us: leave a message, follow its answer, stop it, ask what waits."""

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from time import monotonic
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from bff import errors, trace, transport
from bff.errors import BY_CODE, Away, ChatError, UpstreamError, UpstreamFailure, UpstreamTimeout, UpstreamUnavailable
from bff.following import Answer, Followed
from bff.held import HeldAnswers
from bff.identity import Identity
from bff.message_ids import MESSAGE_ID
from bff.ops import metrics
from bff.ops.hub import Watch
from bff.transport import EventSource, Response, Session
from bff.upstream import CHECK_SECONDS, JOIN_SECONDS, Service, Timeouts

RETRY_SECONDS: Final = 2
"""After which an answer whose stream could not be opened is worth asking for again."""
LEARN_SECONDS: Final = 0.5
"""How long the first answer of a process is held back until its broker has said something. Brokers do so at once."""
REFUSALS: Final = (
    errors.InvalidRequest,
    errors.NotFound,
    errors.Busy,
    errors.Expired,
    errors.IdempotencyConflict,
    errors.TooManyRequests,
)
"""What our own broker may say of a request, in `code`; anybody else's 404 is a wrong address."""


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


class BrokerClient:
    """Leaves messages with the broker and follows their answers."""

    def __init__(
        self,
        service: Service,
        session: Session,
        timeouts: Timeouts,
        held: HeldAnswers,
        *,
        client_id: str,
        max_event_bytes: int,
        stands_alone: bool,
        numbered: bool | None = None,
    ) -> None:
        self._service = service
        self._session = session
        self._timeouts = timeouts
        self._held = held
        self._client_id = client_id
        self._max_event_bytes = max_event_bytes
        self._stands_alone = stands_alone
        self.numbered = numbered
        """Whether the broker numbers its events; None until the first one has been seen."""

    @property
    def outlives_us(self) -> bool:
        """Whether another process can go on with an answer once this one has gone."""
        return self._stands_alone and self.numbered is not False

    def opening(self) -> float:
        """The moment (monotonic) by which a message is left and its stream open, if both begin now."""
        return monotonic() + self._timeouts.opening

    def enqueue(self, identity: Identity, content: Mapping[str, Any], until: float) -> Receipt:
        """`content`: the message, and what only our own broker understands: on_busy, on_disconnect, group, ….

        Raises an UpstreamFailure, or what our own broker refuses: Busy, Expired, IdempotencyConflict, TooManyRequests.
        """
        body = {**content, "user_id": identity.user_id, "org_id": identity.org, "client_id": self._client_id}
        with metrics.timed(metrics.ENQUEUE), _worth_a_retry(UpstreamTimeout):
            content = transport.read_json(self._send("POST", "/api/v1/message", until, body=body), until)
        message_id, position = content.get("message_id"), content.get("queue_position")
        if not isinstance(message_id, str) or not MESSAGE_ID.fullmatch(message_id):
            raise UpstreamError(detail="no message_id in the broker's answer")
        return Receipt(message_id, position if type(position) is int else 1)

    def follow(self, user_id: str, message_id: str, until: float) -> Answer:
        """Opens the stream of a message that was just left.

        Raises an UpstreamFailure, or NotFound, Expired from our own broker.
        """
        if held := self._held.find(user_id, message_id):
            return held.reader()
        reopen = partial(self._open, user_id, message_id)
        with _worth_a_retry(UpstreamFailure):
            source = reopen("", until, None)
        if source is not None and not self._numbers(user_id, source, until):
            return self._held.adopt(user_id, message_id, source).reader()
        return Followed(reopen, source, numbered=self.numbered)

    def resume(self, user_id: str, message_id: str, until: float, after: str, *, on_disconnect: str = "") -> Answer | None:
        """Follows a message again, after the event id `after`, from the start where that is "".

        None when there is nothing left to read. Raises an UpstreamFailure; NotFound, Expired from our own broker;
        NotFound for an answer this process has never read of a broker that does not number its events: opening its
        stream a second time would steal it from its reader.
        """
        if held := self._held.find(user_id, message_id):
            return held.reader()
        reopen = partial(self._open, user_id, message_id)
        with _worth_a_retry(UpstreamFailure):
            self._refuse_unnumbered(user_id)
            source = self._open(user_id, message_id, after, until, on_disconnect=on_disconnect)
        return Followed(reopen, source, after, numbered=True) if source is not None else None

    def _refuse_unnumbered(self, user_id: str) -> None:
        """Raises NotFound where the broker does not number its events. A last event id proves nothing: anybody can say one."""
        if self.numbered is None:
            self.places(user_id)
        if self.numbered is False:
            raise errors.NotFound

    def _numbers(self, user_id: str, source: EventSource, until: float) -> bool:
        """Whether the broker numbers its events: the first stream of this process shows it, or its queue if that is slow."""
        if self.numbered is None:
            # What breaks already here breaks again where it is read, and is told there: the message is in the queue.
            with contextlib.suppress(UpstreamFailure):
                first = source.peek(min(until, monotonic() + LEARN_SECONDS))
                self.numbered = None if first is None else first.id != ""
            if self.numbered is None:
                with contextlib.suppress(ChatError):
                    self.places(user_id, min(until, monotonic() + LEARN_SECONDS))
        return self.numbered is not False

    def stop(self, user_id: str, message_id: str) -> None:
        """Raises an UpstreamFailure, NotFound."""
        if held := self._held.find(user_id, message_id):
            held.stop()
            return
        self._refuse_unnumbered(user_id)
        with contextlib.suppress(errors.Expired):  # Long over.
            path = f"/api/v1/message/{message_id}"
            self._send("DELETE", path, self.opening(), params={"user_id": user_id}).close()

    def cancel_if_unread(self, user_id: str, message_id: str) -> None:
        """Of our own broker: ends, at once, what is for its readers only and has none. Raises an UpstreamFailure, NotFound."""
        with contextlib.suppress(errors.Expired):
            params = {"user_id": user_id, "if": "unread"}
            self._send("DELETE", f"/api/v1/message/{message_id}", self.opening(), params=params).close()

    def runs(self, user_id: str, group: str, event_id: str = "") -> Runs:
        """Of our own broker: what runs or waits in one of the user's groups, and whose log holds the event `event_id`.

        Raises an UpstreamFailure.
        """
        until = self.opening()
        params = {"group": group} | ({"event_id": event_id} if event_id else {})
        content = transport.read_json(self._send("GET", _queue_of(user_id), until, params=params), until)
        runs = [Run(run["message_id"], run["run_scope"], run["run_key"], run["stopping"]) for run in content["messages"]]
        return Runs(runs, content.get("located"))

    def places(self, user_id: str, until: float | None = None) -> list[dict[str, Any]]:
        """The user's messages that wait or run: message_id, state, position each.

        Raises an UpstreamFailure, or TooManyRequests.
        """
        until = until or self.opening()
        content = transport.read_json(self._send("GET", _queue_of(user_id), until), until)
        messages = content.get("messages")
        if self.numbered is None:
            self.numbered = messages is not None  # The original broker has no such list, and numbers nothing.
        if isinstance(messages, list):
            return [_place(message) for message in messages]
        return [{"message_id": message_id, "state": "running", "position": 0} for message_id in self._held.running(user_id)]

    def check(self) -> None:
        """Raises an UpstreamFailure when the broker is not there, or says itself that it cannot work."""
        until = monotonic() + CHECK_SECONDS
        status = transport.read_json(self._send("GET", "/health", until), until).get("status")
        if status not in {"healthy", "degraded"}:
            raise UpstreamUnavailable(detail=f"the broker is {status}")

    def _open(
        self,
        user_id: str,
        message_id: str,
        after: str,
        until: float,
        watch: Watch | None = None,
        on_disconnect: str = "",
    ) -> EventSource | None:
        """None when there is nothing left to read after `after`."""
        headers: dict[str, str | bytes] = {"Accept": "text/event-stream"}
        if after:
            headers["Last-Event-ID"] = after.encode()  # A text would be sent as Latin-1.
        query = {"user_id": user_id, "message_id": message_id} | ({"on_disconnect": on_disconnect} if on_disconnect else {})
        response = self._send("GET", "/api/v1/stream", until, headers=headers, params=query, watch=watch)
        if response.status_code == 204:
            response.close()
            return None
        return EventSource(response, self._timeouts.silence, self._max_event_bytes, JOIN_SECONDS)

    def _send(
        self, method: str, path: str, until: float, headers: Mapping[str, str | bytes] | None = None, **parts: Any
    ) -> Response:
        with metrics.failures("broker"):
            response = transport.send(
                self._session,
                method,
                self._service.url + path,
                headers={"X-API-Key": self._service.key, **trace.headers(), **(headers or {})},
                connect=self._timeouts.connect,
                until=until,
                **parts,
            )
            if response.status_code not in {200, 202, 204}:
                raise _refusal(response, until)
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


def _refusal(response: Response, until: float) -> ChatError:
    """What a broker's status means for the one who asked; the broker's own words stay here."""
    status = response.status_code
    seconds = transport.retry_after(response, default=2)
    try:
        content = transport.read_json(response, until)
    except UpstreamFailure:
        content = {}
    kind = BY_CODE.get(code) if isinstance(code := content.get("code"), str) else None
    if kind in REFUSALS and kind.status == status:
        message_id = content.get("message_id")
        return kind(
            retry_after=seconds if status == 429 else None,
            message_id=message_id if isinstance(message_id, str) and MESSAGE_ID.fullmatch(message_id) else "",
        )
    if status == 429:
        return errors.TooManyRequests(retry_after=seconds)
    if status == 503:
        return Away(detail="the broker answered 503", retry_after=seconds)
    return UpstreamError(detail=f"the broker answered {status}")
