"""Message ids, and those that our own broker makes: nobody can guess one, and each is marked with the org it was left for.

A broker's answers are a user's, and its contract knows no orgs. By the mark a user who belongs to two of them is shown in
each what was said there, without anything to be kept. Another broker's ids have none, and are anybody's of that user.
"""

import re
import uuid
from hashlib import sha256
from typing import Final

MESSAGE_ID: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,128}")
"""Of any broker: what can be a segment of a path."""
_MARKED: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.([0-9a-f]{12})")


def new_id(org: str) -> str:
    return f"{uuid.uuid4()}.{_mark(org)}"


def may_be_of(message_id: str, org: str) -> bool:
    marked = _MARKED.fullmatch(message_id)
    return marked is None or marked[1] == _mark(org)


def _mark(org: str) -> str:
    return sha256(org.encode()).hexdigest()[:12]
