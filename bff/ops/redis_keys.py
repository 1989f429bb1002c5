"""Names of keys and channels in Redis. All begin with REDIS_PREFIX, so that deployments can share one Redis.

In Redis Cluster the text in braces decides a key's slot: a group's keys are in one slot, and so is each part of the schedule.
"""

from hashlib import sha256
from typing import Final, NamedTuple

DEFAULT_PREFIX: Final = "chat"


class Keys(NamedTuple):
    prefix: str = DEFAULT_PREFIX

    def name(self, text: str) -> str:
        """A key or channel of the whole deployment."""
        return f"{self.prefix}:{text}"

    def tagged(self, tag: str, text: str = "") -> str:
        """A key or channel in the slot of `tag`: the hash of a user or a group, or the number of a part of the schedule."""
        return f"{self.prefix}:{{{tag}}}:{text}"


def hash_user_id(user_id: str) -> str:
    """A hash of the user id for use in keys: user ids may be long, and contain braces, which mark a cluster's hash slot."""
    return sha256(user_id.encode()).hexdigest()[:32]
