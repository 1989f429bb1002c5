"""Message ids, and the marks that our own broker's ids end in: of the org and of the group that a message belongs to.

A broker's contract knows users, not orgs. By the first mark a user who belongs to two orgs is shown in each what was said
there, without a look-up. By the second every call that names a message finds its group's keys, which in a cluster of Redis
live in one slot. Ids of another broker have no marks: they belong to the user's own group, and to any of the user's orgs.
"""

import re
import uuid
from hashlib import sha256
from typing import Final

MESSAGE_ID: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,128}")
"""Of any broker: what can be a segment of a path."""
_UUID: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_MARKED: Final = re.compile(rf"{_UUID}\.([0-9a-f]{{12}})(?:\.([0-9a-f]{{32}}))?")


def new_id(org: str, user_id: str, group: str = "") -> str:
    return f"{uuid.uuid4()}.{_org_mark(org)}.{group_mark(user_id, group)}"


def may_be_of(message_id: str, org: str) -> bool:
    marked = _MARKED.fullmatch(message_id)
    return marked is None or marked[1] == _org_mark(org)


def group_mark(user_id: str, group: str = "") -> str:
    """What stands for a user's group in ids and keys; "" names the user's own one. No user id holds a NUL."""
    return sha256((f"{user_id}\0{group}" if group else user_id).encode()).hexdigest()[:32]


def group_mark_of(message_id: str, user_id: str) -> str:
    """The mark that an id ends in; an id without one belongs to the user's own group."""
    marked = _MARKED.fullmatch(message_id)
    return marked[2] if marked and marked[2] else group_mark(user_id)


def _org_mark(org: str) -> str:
    return sha256(org.encode()).hexdigest()[:12]
