"""Records in the database how stored responses of /v1/responses ended, unless they are complete."""

import logging
from typing import Final

from bff.broker.queue.base import LogEntry, Message
from bff.errors import ChatError
from bff.upstream import events
from bff.upstream.engine_client import EngineClient

log = logging.getLogger(__name__)

_STATUSES: Final = {"stopped": "cancelled", "error": "failed"}
"""By the type of a reply's last event."""


def record(bundled: EngineClient, message: Message, last: LogEntry) -> None:
    """If this fails, a later reader of the response does it."""
    end = events.parse_object(last[1])
    status = _STATUSES.get(end.get("type", ""))
    if status is None or "response_id" not in message.content:
        return
    try:
        bundled.end_response(message.content, status, str(end.get("code", "")))
    except ChatError as problem:
        log.warning("message %s: the end of its response could not be stored: %s", message.id, problem.detail)
