"""Other deployments that share a Redis. For `flask doctor`."""

import re
from itertools import islice
from typing import Final

from bff.ops.redis import Client, map_errors
from bff.ops.redis_keys import Keys

MAX_KEYS: Final = 20_000
"""Looked at, of those that may be ours or another deployment's."""
_OUR_KEY: Final = re.compile(r"([A-Za-z0-9._-]{1,64}):\{[0-9a-f]{1,32}\}:(q|run|old|due|fleeting|streams|minute|[mlrc]:.*)")


def foreign_worker(client: Client, keys: Keys, deployment: str) -> bool:
    """Whether workers of another deployment have the same prefix. "1" is an earlier version's, which may be ours."""
    with map_errors():
        return client.get(keys.name("worker")) not in {None, "1", deployment}


def other_prefixes(client: Client, keys: Keys) -> list[str]:
    """The prefixes of other deployments with keys in the same Redis. Raises StorageUnavailable."""
    with map_errors():
        found = {match[1] for key in islice(client.scan_iter("*:{*}:*", 1000), MAX_KEYS) if (match := _OUR_KEY.fullmatch(key))}
    return sorted(found - {keys.prefix})
