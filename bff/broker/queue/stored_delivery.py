"""A webhook delivery in the in-memory queue."""

from dataclasses import dataclass

from bff.broker.queue.deliveries import Delivery, DeliveryEntry
from bff.http import sse


@dataclass(eq=False)
class StoredDelivery:
    delivery: Delivery
    due: float
    number: int
    failed: bool = False
    error: str = ""
    claimed: bool = False
    foreign: bool = False
    """Whether another process, which may still be alive, sends it."""
    first_record: int = 0
    """The position of its last complete record in the journal."""

    def __lt__(self, other: "StoredDelivery") -> bool:
        return (self.due, self.number) < (other.due, other.number)

    @property
    def size(self) -> int:
        return sse.size_of(self.delivery.event) + len(self.delivery.webhook)

    def entry(self) -> DeliveryEntry:
        delivery, state = self.delivery, "failed" if self.failed else "waiting"
        fields = (delivery.id, delivery.url, delivery.message_id, delivery.user_id, delivery.ended_at)
        return DeliveryEntry(*fields, state, delivery.tries, self.due, self.error)  # type: ignore[arg-type]
