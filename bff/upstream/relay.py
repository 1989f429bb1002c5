"""Translates the broker's events to the client's. Does no I/O.

The output ends with exactly one terminal event, whatever the input; only a disconnect or a drain ends it without one.
"""

from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Any, Final

from bff.errors import (
    BY_CODE,
    AnswerIncomplete,
    AnswerTimeout,
    ChatError,
    ClientDisconnected,
    Draining,
    InternalError,
    Interrupted,
    UpstreamError,
    UpstreamTimeout,
    detached,
)
from bff.http import event_ids
from bff.http.sse import Event
from bff.upstream import events

NO_SLOT: Final = "Timed out waiting for processing slot"
"""The only error text of the original broker that means a timeout."""

_CODES_OF_ANY_BROKER: Final[dict[str, type[ChatError]]] = {kind.code: kind for kind in (Interrupted, AnswerTimeout)}
"""Error codes accepted from any broker."""
_TOOL_EVENTS: Final = frozenset({"tool_use", "tool_result"})


class Relay:
    """Translates one reply.

    `ended` is the outcome: the terminal event's type, an error's code, or "drained" or "aborted" without a terminal event.
    """

    def __init__(
        self,
        request_id: str,
        *,
        tool_events: bool = True,
        reasoning: bool = True,
        expose_errors: bool = False,
        own: bool = False,
        irrevocable: Callable[[], bool] = lambda: False,
    ) -> None:
        """`tool_events`, `reasoning`: whether these events are passed on.

        `own`: the broker is the bundled one, and its error codes are those of errors.py.

        `irrevocable`: whether the client was sent output that its protocol cannot retract; then a restart is an error.
        """
        self._request_id = request_id
        self._dropped_events = (frozenset() if tool_events else _TOOL_EVENTS) | (frozenset() if reasoning else {"reasoning"})
        self._expose_errors = expose_errors
        self._codes = BY_CODE if own else _CODES_OF_ANY_BROKER
        self._irrevocable = irrevocable
        self.ended = ""
        self.error: ChatError | None = None
        self.events = 0
        self.first_at: float | None = None
        """The moment (monotonic) of the first event."""
        self.dropped = 0
        """Events without a valid type, which no client could read."""

    def __call__(self, reply: Iterable[Event | None]) -> Iterator[Event | None]:
        try:
            for event in reply:
                if event is None:
                    yield None
                    continue
                translated = self._translate(event)
                if translated is not None:
                    self._count()
                    yield translated
                if self.ended:
                    return
            problem: ChatError = AnswerIncomplete()
        except ClientDisconnected as error:
            self.ended = "drained" if isinstance(error, Draining) else "aborted"
            raise
        except ChatError as error:
            problem = detached(error)
        except Exception as error:  # noqa: BLE001 - the client gets an error event; the API logs `detail`.
            problem = InternalError(detail=repr(error))
        self._count()
        yield self._fail(problem)

    def _count(self) -> None:
        self.events += 1
        if self.first_at is None:
            self.first_at = monotonic()

    def _translate(self, event: Event) -> Event | None:
        if event.event == "queued":
            return events.status(events.QUEUED, _position(event.data), _id(event))
        if event.event == "processing":
            return events.status(events.PROCESSING, event_id=_id(event))
        if event.event == "error":
            return self._fail(self._upstream_problem(events.parse(event.data), event.data), _id(event))
        if event.event == "done":
            raise AnswerIncomplete(detail="done before a terminal event")
        return self._translate_message(event)

    def _translate_message(self, event: Event) -> Event | None:
        content = events.parse_object(event.data)
        kind = content.get("type")
        if not isinstance(kind, str):
            self.dropped += 1
            return None
        if kind == "error":
            return self._fail(self._upstream_problem(content, event.data), _id(event))
        if kind == "restart" and self._irrevocable():
            return self._fail(Interrupted(detail="the reply was restarted after output"), _id(event))
        if kind in events.TERMINAL:
            if not events.has_responses(content.get("response")):
                return self._fail(UpstreamError(detail=f"{kind} without response.responses"), _id(event))
            self.ended = kind
        elif kind in self._dropped_events:
            return None
        # In JSON, line feeds occur only between tokens, where a space is equivalent.
        data = event.data.replace("\n", " ")
        return Event("", data, "" if kind == "keepalive" else _id(event))

    def _upstream_problem(self, content: Any, data: str) -> ChatError:
        message = content.get("error") if isinstance(content, dict) else content
        detail = message if isinstance(message, str) else data
        code = content.get("code") if isinstance(content, dict) else None
        if isinstance(code, str) and code in self._codes and content.get("type") == "error":
            return self._codes[code](detail=detail)
        return UpstreamTimeout(detail=detail) if message == NO_SLOT else UpstreamError(detail=detail)

    def _fail(self, problem: ChatError, event_id: str = "") -> Event:
        self.ended = problem.code
        self.error = problem
        if self._expose_errors and problem.detail:
            problem = type(problem)(problem.detail)
        return events.error(problem, self._request_id, event_id)


def _id(event: Event) -> str:
    """Drops an id that no client could send back; the client then resumes after the last resumable one."""
    return event.id if event_ids.resumable(event.id) else ""


def _position(data: str) -> int | None:
    position = events.parse_object(data).get("position")
    return position if type(position) is int else None
