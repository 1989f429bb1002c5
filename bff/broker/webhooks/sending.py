"""One try of a webhook: its body, its signature, and the request."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final, NamedTuple

from standardwebhooks import Webhook

from bff.broker.queue.deliveries import Delivery, fields_of
from bff.config.settings import Settings
from bff.errors import UpstreamFailure
from bff.upstream import events, http

GONE: Final = 410
"""The receiver refuses further webhooks of this message."""
MAX_ERROR_CHARACTERS: Final = 200
_KINDS: Final = {"complete": "completed", "stopped": "stopped"}
"""By the type of a message's last event; "failed" for any other."""


class Outcome(NamedTuple):
    ended: bool
    """Whether there is to be no further try."""
    result: str
    """delivered, gone, or what went wrong."""


class Sender:
    """Sends requests to URLs that callers chose: to public addresses only, without redirects.

    Of a response it reads the head only.
    """

    def __init__(self, settings: Settings) -> None:
        self._session = http.public_session_for(settings)
        self._connect_seconds = min(settings.upstream_connect_seconds, settings.webhook_seconds)
        self._seconds = settings.webhook_seconds
        self._signers = [Webhook(secret) for secret in settings.webhook_secret.split()]

    def send(self, delivery: Delivery) -> Outcome:
        body = body_of(delivery)
        headers = signed_headers(self._signers, delivery.id, body)
        deadline = monotonic() + self._seconds
        try:
            response = http.send(
                self._session,
                "POST",
                delivery.url,
                headers=headers,
                connect=self._connect_seconds,
                deadline=deadline,
                body=body.encode("utf-8"),
            )
        except UpstreamFailure as problem:
            return Outcome(False, (problem.detail or problem.code)[:MAX_ERROR_CHARACTERS])
        response.close()  # The body is not read, whatever its size.
        return _outcome_of(response.status_code)


def _outcome_of(status: int) -> Outcome:
    if 200 <= status < 300:
        return Outcome(True, "delivered")
    return Outcome(status == GONE, "gone" if status == GONE else f"the response was {status}")


def webhook_id(delivery_id: str) -> str:
    return f"msg_{delivery_id}"


def signed_headers(signers: Sequence[Webhook], delivery_id: str, body: str) -> dict[str, str]:
    """One signature for each secret: the receiver may know either one while a secret is replaced."""
    now, name = datetime.now(UTC), webhook_id(delivery_id)
    return {
        "webhook-id": name,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signer.sign(name, now, body) for signer in signers),
    }


def body_of(delivery: Delivery) -> str:
    """The same for each try of a delivery. ASCII: a reply may hold half of a surrogate pair, which UTF-8 cannot encode."""
    event = events.parse_object(delivery.event)
    kind = _KINDS.get(event.get("type", ""), "failed")
    data = {"message_id": delivery.message_id, "user_id": delivery.user_id, **fields_of(delivery.webhook)}
    ended_at = datetime.fromtimestamp(delivery.ended_at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    content = {"type": f"message.{kind}", "timestamp": ended_at, "data": data | _end_of(kind, event)}
    return json.dumps(content, separators=(",", ":"))


def _end_of(kind: str, event: dict[str, Any]) -> dict[str, Any]:
    if kind != "failed":
        return {"response": event.get("response")}
    message = event.get("error")
    return {"error": {"code": event.get("code", "upstream_error"), "message": message if isinstance(message, str) else ""}}
