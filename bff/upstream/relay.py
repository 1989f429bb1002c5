"""The broker's words → the browser's words. Pure: events in, events out.

Whatever comes in, out comes exactly one terminal event, last. Only a reader that left, or a drain, ends it without one.
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
"""The one error of the original broker that means "too slow" and not "broken"."""

_ANYBODYS_CODES: Final[dict[str, type[ChatError]]] = {kind.code: kind for kind in (Interrupted, AnswerTimeout)}
"""Which a broker that learned them from ours may say, whoever's it is."""
_TOOL_EVENTS: Final = frozenset({"tool_use", "tool_result"})


class Relay:
    """How one answer is said on.

    `ended` tells afterwards how: the type of the last event, or an error's code; "drained" or "aborted" where there was none.
    """

    def __init__(
        self,
        request_id: str,
        *,
        tool_events: bool = True,
        expose_errors: bool = False,
        own: bool = False,
        irrevocable: Callable[[], bool] = lambda: False,
    ) -> None:
        """`own`: the broker is ours, and the codes of its errors are those of errors.py.

        `irrevocable`: whether the reader was sent output that its protocol cannot take back. A restart is an error, then.
        """
        self._request_id = request_id
        self._tool_events = tool_events
        self._expose_errors = expose_errors
        self._codes = BY_CODE if own else _ANYBODYS_CODES
        self._irrevocable = irrevocable
        self.ended = ""
        self.problem: ChatError | None = None
        self.events = 0
        self.first_at: float | None = None
        """The moment (monotonic) of the first event."""
        self.dropped = 0
        """Events that no browser could have read."""

    def __call__(self, answer: Iterable[Event | None]) -> Iterator[Event | None]:
        try:
            for event in answer:
                if event is None:
                    yield None
                    continue
                said = self._translate(event)
                if said is not None:
                    self._count()
                    yield said
                if self.ended:
                    return
            problem: ChatError = AnswerIncomplete()
        except ClientDisconnected as left:
            self.ended = "drained" if isinstance(left, Draining) else "aborted"
            raise
        except ChatError as error:
            problem = detached(error)
        except Exception as error:  # noqa: BLE001 - whatever broke, the browser is told; the door logs `detail`.
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
            return self._fail(self._upstream_problem(events.parsed(event.data), event.data), _id(event))
        if event.event == "done":
            raise AnswerIncomplete(detail="done came before any terminal event")
        return self._pass_on(event)

    def _pass_on(self, event: Event) -> Event | None:
        content = events.parsed_object(event.data)
        kind = content.get("type")
        if not isinstance(kind, str):
            self.dropped += 1
            return None
        if kind == "error":
            return self._fail(self._upstream_problem(content, event.data), _id(event))
        if kind == "restart" and self._irrevocable():
            return self._fail(Interrupted(detail="the answer begins anew, after output"), _id(event))
        if kind in events.TERMINAL:
            if not events.has_responses(content.get("response")):
                return self._fail(UpstreamError(detail=f"{kind} without response.responses"), _id(event))
            self.ended = kind
        elif kind in _TOOL_EVENTS and not self._tool_events:
            return None
        # A line feed in JSON can only stand between tokens, where a space means the same.
        data = event.data.replace("\n", " ")
        return Event("", data, "" if kind == "keepalive" else _id(event))

    def _upstream_problem(self, content: Any, data: str) -> ChatError:
        said = content.get("error") if isinstance(content, dict) else content
        detail = said if isinstance(said, str) else data
        code = content.get("code") if isinstance(content, dict) else None
        if isinstance(code, str) and code in self._codes and content.get("type") == "error":
            return self._codes[code](detail=detail)
        return UpstreamTimeout(detail=detail) if said == NO_SLOT else UpstreamError(detail=detail)

    def _fail(self, problem: ChatError, event_id: str = "") -> Event:
        self.ended = problem.code
        self.problem = problem
        if self._expose_errors and problem.detail:
            problem = type(problem)(problem.detail)
        return events.error(problem, self._request_id, event_id)


def _id(event: Event) -> str:
    """Without one that no reader could send back: it resumes from the last one before."""
    return event.id if event_ids.resumable(event.id) else ""


def _position(data: str) -> int | None:
    position = events.parsed_object(data).get("position")
    return position if type(position) is int else None
