"""What the scripts answer, as the queue's own types."""

import json
import logging
from typing import Any

from bff.broker.queue.base import Claim, Message, QueuePosition, StopReason
from bff.ops import metrics

log = logging.getLogger(__name__)


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
    repeatable: str,
) -> Message:
    about = (int(size), fleeting == "1", kept, handler or "engine", scope, key, repeatable == "1")
    return Message(message_id, user_id, json.loads(content), *about)


def claim_of(message_id: str, token: int, waited: str, committed: str, *facts: str) -> Claim:
    """What `claim` in lua/group.lua gives."""
    return Claim(message_of(message_id, *facts), token, max(0, int(waited)) / 1_000_000, committed == "begun")


def places_of(said: list[Any]) -> list[QueuePosition]:
    """What lua/group/places.lua answers."""
    runs, stopping, *more = said
    found = zip(more[::3], more[1::3], more[2::3], strict=True)
    return [
        QueuePosition(message_id, "queued" if at else "running", at, scope, key, stopping=bool(stopping) and not at)
        for at, (message_id, scope, key) in enumerate(found, start=0 if runs else 1)
    ]


def reason_of(text: str) -> StopReason | None:
    """Of what a running message's `stopping` holds, an earlier version's 1 included; None for anything else."""
    return "unread" if text == "unread" else "stopped" if text in {"stopped", "1"} else None


def tell_reaped(said: str) -> None:
    """Of a message whose worker died, what became of it and its id: see lua/group/claim.lua."""
    if said:
        outcome, _, message_id = said.partition(" ")
        metrics.REAPED.labels(outcome).inc()
        log.warning("the worker of message %s is gone: %s", message_id, outcome)
