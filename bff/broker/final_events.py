"""The last words of an answer, as its log keeps them."""

import json

from bff.broker.queue.base import LogEntry
from bff.errors import ChatError, Interrupted
from bff.upstream import events


def failed(problem: ChatError) -> LogEntry:
    return "message", json.dumps({"type": "error", "error": str(problem), "code": problem.code})


def stopped(text: str = "", reply_id: str | None = None) -> LogEntry:
    """`text`: what had been said; `reply_id`: as what it was stored, if it was."""
    return "message", events.stopped(text, reply_id).data


def interrupted() -> LogEntry:
    """Of an answer whose worker died after it had begun, and that must not be asked for again."""
    return failed(Interrupted())


def restart() -> LogEntry:
    """What was told before no longer counts."""
    return "message", json.dumps({"type": "restart"}, separators=(",", ":"))


def done(message_id: str) -> LogEntry:
    return "done", json.dumps({"message_id": message_id})
