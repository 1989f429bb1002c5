"""Error replies of Redis that its configuration causes, as sentences for operators.

redis-py strips the code of errors that it has a class for, so that the class's name is matched, too. Inside scripts, Redis 7.0
does not say which command was refused: `bff/ops/lua/check/commands.lua` appends it in brackets.
"""

import re
from typing import Final

_COMMAND: Final = re.compile(
    r"run the '(?P<name>[^']+)' command|EXEC without (?P<multi>MULTI)|can't run this command.*\[(?P<in_script>\w+)\]"
)
_DENIED: Final = r"no permissions to|user executing the script can't|ACL failure in script"

_SENTENCES: Final = (
    (rf"({_DENIED}).*channel", "Redis refuses our channels: the ACL of REDIS_URL's user lacks &chat:* (or its REDIS_PREFIX's)"),
    (rf"({_DENIED}).*key", "Redis refuses our keys: the ACL of REDIS_URL's user lacks ~chat:* (or its REDIS_PREFIX's)"),
    (_DENIED, "Redis refuses a command inside a script: the ACL of REDIS_URL's user lacks it; `flask chat doctor` names it"),
    (
        r"MovedError|AskError|CrossSlot|\bMOVED\b|\bASK\b|CROSSSLOT",
        "Redis is one node of a cluster and has a part of the keys: REDIS_URL must begin with redis+cluster://",
    ),
    (
        r"ClusterDown|CLUSTERDOWN",
        "Redis Cluster is down or lacks nodes: see CLUSTER INFO",
    ),
    (r"ReadOnlyError|\bREADONLY\b", "Redis is read-only, as a replica is: REDIS_URL must name the primary"),
    (r"MasterDown|MASTERDOWN", "Redis is a replica without a link to its primary: REDIS_URL must name the primary"),
    (r"MISCONF.*No space left", "Redis cannot save to its disk and takes no writes: the disk is full"),
    ("MISCONF", "Redis cannot save to its disk and takes no writes: the disk is full or not writable, see Redis's own log"),
    (r"NOREPLICAS", "Redis takes no writes while it has too few replicas: see its min-replicas-to-write"),
    (r"BusyLoading|\bLOADING\b", "Redis is loading its data"),
    (r"max number of clients", "Redis has no connection left: see its maxclients, or its plan's limit"),
    (r"Authentication|NOAUTH|WRONGPASS", "Redis refuses the user or password of REDIS_URL"),
)


def explain(error: Exception) -> str:
    """A sentence without its period; "" if the error is not about Redis's configuration or state."""
    text = f"{type(error).__name__}: {error}"
    if found := _COMMAND.search(text):
        command = (found["name"] or found["multi"] or found["in_script"]).lower()
        return f"Redis refuses the command {command.upper()}: the ACL of REDIS_URL's user lacks +{command}"
    return next((sentence for pattern, sentence in _SENTENCES if re.search(pattern, text, re.I)), "")
