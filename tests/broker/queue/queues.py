"""Helpers for tests of any queue."""

import json
import uuid

from bff.broker.queue.base import Claim, Message, Page, Queue
from tests.live import DEADLINE

NO_WAIT = 0.0


def new_message(user_id: str = "ann", text: str = "hello", **more) -> Message:
    return Message(str(uuid.uuid4()), user_id, {"message": text}, **more)


def enqueue(queue: Queue, user_id: str = "ann", on_busy: str = "enqueue", **more) -> Message:
    message = new_message(user_id, **more)
    queue.enqueue(message, None, on_busy)
    return message


def claim_next(queue: Queue) -> Claim:
    claim = queue.claim(DEADLINE)
    assert claim is not None
    return claim


def read_log(queue: Queue, message: Message) -> Page:
    """Reads a log that is no longer than a page."""
    return queue.read(message.user_id, message.id, "")


def event_types(queue: Queue, message: Message) -> list[str]:
    return [event.event for event in read_log(queue, message).events]


def published_positions(queue: Queue, message: Message) -> list[int]:
    """Returns the positions in the message's log, in order."""
    contents = [json.loads(event.data) for event in read_log(queue, message).events if event.event == "queued"]
    assert all(content["message_id"] == message.id for content in contents)
    return [content["position"] for content in contents]
