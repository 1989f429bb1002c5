"""What tests do with a queue, whichever it is."""

import json
import uuid

from bff.broker.queue.base import Claim, Message, Page, Queue
from tests.live import DEADLINE

NO_WAIT = 0.0


def new_message(user_id: str = "ann", text: str = "hello", **more) -> Message:
    return Message(str(uuid.uuid4()), user_id, {"message": text}, **more)


def enqueue(queue: Queue, user_id: str = "ann", on_busy: str = "enqueue", **more) -> Message:
    """A message that is in the queue."""
    message = new_message(user_id, **more)
    queue.enqueue(message, None, on_busy)
    return message


def claim_next(queue: Queue) -> Claim:
    claim = queue.claim(DEADLINE)
    assert claim is not None
    return claim


def read_log(queue: Queue, message: Message) -> Page:
    """Of a log that is no longer than a page."""
    return queue.read(message.user_id, message.id, "")


def event_types(queue: Queue, message: Message) -> list[str]:
    return [event.event for event in read_log(queue, message).events]


def published_positions(queue: Queue, message: Message) -> list[int]:
    """What its reader has been told, in order."""
    told = [json.loads(event.data) for event in read_log(queue, message).events if event.event == "queued"]
    assert all(data["message_id"] == message.id for data in told)
    return [data["position"] for data in told]
