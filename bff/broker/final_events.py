"""The events that the broker itself writes into the log of a reply."""

import json

from bff.broker.queue.base import LogEntry
from bff.errors import ChatError, Interrupted
from bff.upstream import events


def failed(problem: ChatError) -> LogEntry:
    return "message", json.dumps({"type": "error", "error": str(problem), "code": problem.code})


def stopped(text: str = "", reply_id: str | None = None) -> LogEntry:
    """`text`: the output so far; `reply_id`: the id under which it was stored, if it was."""
    return "message", events.stopped(text, reply_id).data


def interrupted() -> LogEntry:
    """The worker died after the output had begun, and the reply must not be retried."""
    return failed(Interrupted())


def restart() -> LogEntry:
    """The reply begins anew: readers drop all output before this event."""
    return "message", json.dumps({"type": "restart"}, separators=(",", ":"))


def done(message_id: str) -> LogEntry:
    return "done", json.dumps({"message_id": message_id})
