"""Message ids. The bundled broker's ids end in two hashes, of the message's org and of its group.

A broker's contract knows users, not orgs. The org's hash separates the messages of a user who belongs to two orgs, without a
lookup. From the group's hash, every call that names a message derives its group's keys, which in Redis Cluster are in one
slot. Ids of other brokers have no hashes: they belong to the user's own group, and to any of the user's orgs.
"""

import re
import uuid
from hashlib import sha256
from typing import Final

MESSAGE_ID: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,128}")
"""An id of any broker: what is safe as a path segment."""
_UUID: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_WITH_HASHES: Final = re.compile(rf"{_UUID}\.([0-9a-f]{{12}})(?:\.([0-9a-f]{{32}}))?")


def new_id(org: str, user_id: str, group: str = "", first: uuid.UUID | None = None) -> str:
    """`first`: the first part, random by default."""
    return f"{first or uuid.uuid4()}.{_org_hash(org)}.{group_mark(user_id, group)}"


def is_own(message_id: str) -> bool:
    """Whether it can only be an id of the bundled broker."""
    return _WITH_HASHES.fullmatch(message_id) is not None


def may_be_of(message_id: str, org: str) -> bool:
    match = _WITH_HASHES.fullmatch(message_id)
    return match is None or match[1] == _org_hash(org)


def group_mark(user_id: str, group: str = "") -> str:
    """The hash of a user's group in ids and keys; "" is the user's own group. No user id contains a NUL."""
    return sha256((f"{user_id}\0{group}" if group else user_id).encode()).hexdigest()[:32]


def group_mark_of(message_id: str, user_id: str) -> str:
    """The group's hash in an id; an id without one belongs to the user's own group."""
    match = _WITH_HASHES.fullmatch(message_id)
    return match[2] if match and match[2] else group_mark(user_id)


def _org_hash(org: str) -> str:
    return sha256(org.encode()).hexdigest()[:12]
