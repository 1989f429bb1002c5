"""The contract of webhook deliveries, which a queue stores together with the end of their messages.

A delivery is one message's end for one URL. Deliveries of one group to one URL are a lane: they are sent one after the other,
in the order in which they are due, which is that of the messages' ends unless a try has failed. Lanes are independent of
each other. A delivery is claimed under a lease, like a message: if its process dies, another one sends it again, with the same
id.
"""

import json
from collections.abc import Sequence
from hashlib import sha1
from typing import Any, Final, Literal, NamedTuple, Protocol

FAILED_SECONDS: Final = 3 * 24 * 3600
"""How long a delivery is listed whose last try failed."""
MAX_LISTED: Final = 1000

DeliveryState = Literal["waiting", "failed"]


class Delivery(NamedTuple):
    id: str
    url: str
    webhook: str
    """The message's `Message.webhook`."""
    message_id: str
    user_id: str
    ended_at: float
    """Seconds since 1970."""
    event: str
    """The data of the last event in the message's log, before `done`."""
    tries: int = 0
    """Those that failed."""
    token: str = ""
    """Of the claim."""


class DeliveryEntry(NamedTuple):
    """A delivery in a list."""

    id: str
    url: str
    message_id: str
    user_id: str
    ended_at: float
    state: DeliveryState
    tries: int
    next_at: float
    """When it is tried next, or deleted if it has failed: seconds since 1970."""
    error: str
    """Of the last try; "" before it."""


class Deliveries(Protocol):
    """Where the storage is remote, each method may raise StorageUnavailable; some raise ServerFull."""

    def claim(self, timeout: float) -> Delivery | None:
        """Claims a due delivery of a lane of which none is claimed; None after `timeout` seconds without one."""

    def release(self, delivery: Delivery, delay: float) -> None:
        """Gives the claim back without a try. The delivery's lane waits for `delay` seconds."""

    def complete(self, delivery: Delivery) -> None:
        """Deletes the delivery."""

    def retry(self, delivery: Delivery, delay: float, error: str) -> None:
        """A try failed: the next one is in `delay` seconds. Does nothing if another process has claimed it meanwhile."""

    def fail(self, delivery: Delivery, error: str) -> None:
        """The last try failed: the delivery is listed for FAILED_SECONDS. Otherwise as `retry`."""

    def entries(self) -> Sequence[DeliveryEntry]:
        """Up to MAX_LISTED deliveries that wait or have failed."""

    def count(self) -> int:
        """Number of deliveries that wait or have failed; with very many groups, of the first ones only."""

    def send_again(self, delivery_id: str) -> bool:
        """Has the delivery tried now, and as often as a new one. Returns whether it is known."""


def webhook_of(urls: Sequence[str], fields: dict[str, str | None]) -> str:
    """The text of `Message.webhook`: where to send the message's end, and what its body says about the message."""
    known = {name: value for name, value in fields.items() if value is not None}
    return json.dumps({"urls": [*dict.fromkeys(urls)], **known}) if urls else ""


def urls_of(webhook: str) -> list[str]:
    urls: list[str] = json.loads(webhook)["urls"] if webhook else []
    return urls


def fields_of(webhook: str) -> dict[str, Any]:
    return {name: value for name, value in json.loads(webhook).items() if name != "urls"}


def delivery_id(group: str, url: str, message_id: str) -> str:
    """The same whenever it is computed, as in redis/lua/group.lua: the group's hash, and hashes of the URL and the message."""
    return f"{lane_of(group, url)}{_digest(message_id)[:24]}"


def lane_of(group: str, url: str) -> str:
    return f"{group}{_digest(url)[:16]}"


def _digest(text: str) -> str:
    return sha1(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
