"""What the scripts answer, as the queue's own types."""

import json

from bff.broker.queue import Message, StopReason


def message_of(
    message_id: str,
    user_id: str,
    content: str,
    size: str,
    fleeting: str,
    kept: str,
    handler: str,
    scope: str,
    key: str,
) -> Message:
    return Message(message_id, user_id, json.loads(content), int(size), fleeting == "1", kept, handler or "engine", scope, key)


def reason_of(text: str) -> StopReason | None:
    return "unread" if text == "unread" else "stopped" if text == "stopped" else None
