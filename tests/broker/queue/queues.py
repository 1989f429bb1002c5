"""What tests do with a queue, whichever it is."""

import json
import uuid

from bff.broker.queue.base import Claim, Message, Page, Queue
from tests.live import DEADLINE

AT_ONCE = 0.0


def message(user_id: str = "ann", text: str = "hello", **more) -> Message:
    return Message(str(uuid.uuid4()), user_id, {"message": text}, **more)


def left(queue: Queue, user_id: str = "ann", on_busy: str = "enqueue", **more) -> Message:
    """A message that is in the queue."""
    said = message(user_id, **more)
    queue.enqueue(said, None, on_busy)
    return said


def claimed(queue: Queue) -> Claim:
    claim = queue.claim(DEADLINE)
    assert claim is not None
    return claim


def whole(queue: Queue, said: Message) -> Page:
    """Of a log that is no longer than a page."""
    return queue.read(said.user_id, said.id, "")


def types(queue: Queue, said: Message) -> list[str]:
    return [event.event for event in whole(queue, said).events]


def positions(queue: Queue, said: Message) -> list[int]:
    """What its reader has been told, in order."""
    told = [json.loads(event.data) for event in whole(queue, said).events if event.event == "queued"]
    assert all(data["message_id"] == said.id for data in told)
    return [data["position"] for data in told]
