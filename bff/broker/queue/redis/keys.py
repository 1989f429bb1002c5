"""The keys of a group, and of what belongs to it."""

from hashlib import sha256

from bff.broker.queue.base import Claim, Message
from bff.ops.redis import key_prefix
from bff.upstream.message_ids import group_mark_of


def digest_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def group_of(message: Message) -> str:
    return group_mark_of(message.id, message.user_id)


def queue_key(group: str) -> str:
    return f"{key_prefix(group)}q"


def claim_key(claim: Claim) -> tuple[str, int]:
    return claim.message.id, claim.token
