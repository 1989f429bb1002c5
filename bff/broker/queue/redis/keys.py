"""The keys of a group, and of what belongs to it."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Final, NamedTuple

from bff.broker.queue.base import Claim, Message
from bff.ops.redis_keys import Keys
from bff.upstream.message_ids import group_mark_of

PARTS: Final = 16
"""Of the schedule: each is in one slot of a cluster. Fixed, because a group's part must not change."""


class GroupKeys(NamedTuple):
    keys: Keys
    group: str

    def key(self, name: str) -> str:
        return self.keys.tagged(self.group, name)

    @property
    def queue(self) -> list[str]:
        """The keys that each script needs which may change the group's order."""
        return [self.key("q"), self.key("run"), self.key("old")]

    @property
    def webhooks(self) -> list[str]:
        return [self.key("hooks"), self.key("hooksdue")]

    @property
    def ending(self) -> list[str]:
        """The keys that each script needs which may end a message."""
        return [*self.queue, *self.webhooks]

    def message(self, message_id: str) -> list[str]:
        return [self.key(f"m:{message_id}"), self.key(f"l:{message_id}")]


def digest_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def group_of(message: Message) -> str:
    return group_mark_of(message.id, message.user_id)


def part_of(group: str) -> int:
    """The group's part of the schedule. `group`: a hash in hexadecimal digits."""
    return int(group[:4], 16) % PARTS


def by_part(members: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Groups members that begin with a group's hash by its part."""
    parts: dict[int, list[str]] = {}
    for member in members:
        parts.setdefault(part_of(member), []).append(member)
    yield from parts.items()


def claim_key(claim: Claim) -> tuple[str, int, str]:
    return claim.message.id, claim.token, claim.nonce
