"""Converts the Lua scripts' results to the queue's types."""

import json
import logging
from typing import Any

from bff.broker.queue.base import Claim, Message, QueuePosition, StopReason
from bff.ops import metrics

log = logging.getLogger(__name__)


def claim_of(
    nonce: str,
    message_id: str,
    token: int,
    waited: str,
    committed: str,
    user_id: str,
    content: str,
    size: str,
    fleeting: str,
    trace: str,
    handler: str,
    scope: str,
    key: str,
    repeatable: str,
    webhook: str,
) -> Claim:
    """From the result of `claim` in lua/group.lua. `nonce`: as passed to it."""
    message = Message(
        message_id,
        user_id,
        json.loads(content),
        int(size),
        cancel_on_disconnect=fleeting == "1",
        trace=trace,
        handler=handler or "engine",
        run_scope=scope,
        run_key=key,
        repeatable=repeatable == "1",
        webhook=webhook,
    )
    return Claim(message, token, max(0, int(waited)) / 1_000_000, committed == "begun", nonce)


def positions_of(result: list[Any]) -> list[QueuePosition]:
    """From the result of lua/group/positions.lua."""
    running, stopping, *fields = result
    messages = zip(fields[::3], fields[1::3], fields[2::3], strict=True)
    return [
        QueuePosition(message_id, "queued" if at else "running", at, scope, key, stopping=bool(stopping) and not at)
        for at, (message_id, scope, key) in enumerate(messages, start=0 if running else 1)
    ]


def stop_reason_of(text: str) -> StopReason | None:
    """From a running message's `stopping` field, or an earlier version's "1"; None for anything else."""
    return "unread" if text == "unread" else "stopped" if text in {"stopped", "1"} else None


def report_reaped(reaped: str) -> None:
    """Logs and counts a message that lost its worker: "" or "<outcome> <message id>", see lua/group/claim.lua."""
    if reaped:
        outcome, _, message_id = reaped.partition(" ")
        metrics.REAPED.labels(outcome).inc()
        log.warning("the worker of message %s is gone: %s", message_id, outcome)
