"""The checks by topic. Importing this package registers them."""

from typing import Final

from bff.api.cli.conformance.chaos import verdicts
from bff.api.cli.conformance.checks import (
    conversations,
    delivery,
    ends,
    errors,
    framing,
    headers,
    http_methods,
    idempotency,
    limits,
    ordering,
    resuming,
    stopping,
    tabs,
)
from bff.api.cli.conformance.model import CHECKS

TOPICS: Final = (
    "stream",
    "headers",
    "framing",
    "end",
    "heartbeat",
    "delivery",
    "resume",
    "tabs",
    "stop",
    "idempotency",
    "order",
    "conversation",
    "errors",
    "limits",
    "http",
    "chaos",
)
"""In the order of the report."""
ALL: Final = {check.id: check for check in sorted(CHECKS.values(), key=lambda check: TOPICS.index(check.topic))}

__all__ = [
    "ALL",
    "TOPICS",
    "conversations",
    "delivery",
    "ends",
    "errors",
    "framing",
    "headers",
    "http_methods",
    "idempotency",
    "limits",
    "ordering",
    "resuming",
    "stopping",
    "tabs",
    "verdicts",
]
