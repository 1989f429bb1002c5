"""The keys and arguments of the Lua scripts."""

from collections.abc import Iterator, Sequence
from hashlib import sha256

from bff.broker.queue.base import Claim, LogEntry, Message
from bff.ops.redis import keys_of
from bff.upstream.message_ids import group_mark_of


def digest_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def group_of(message: Message) -> str:
    return group_mark_of(message.id, message.user_id)


def queue_key(group: str) -> str:
    return f"{keys_of(group)}q"


def queue_key_of(claim: Claim) -> str:
    return queue_key(group_of(claim.message))


def claim_key(claim: Claim) -> tuple[str, int]:
    return claim.message.id, claim.token


def flatten(entries: Sequence[LogEntry]) -> Iterator[str]:
    return (text for entry in entries for text in entry)
