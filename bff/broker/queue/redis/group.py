"""Calls of the Lua scripts that change one group's queue. Every method raises StorageUnavailable; some raise ServerFull."""

import json
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from bff.broker import final_events
from bff.broker.queue.base import MAX_CLAIMS, Claim, LeaseLost, Limits, LogEntry, Message
from bff.broker.queue.redis.keys import GroupKeys, digest_of, group_of
from bff.broker.queue.redis.replies import claim_of
from bff.broker.queue.redis.writes import Write
from bff.errors import StorageUnavailable
from bff.ops.redis import Client
from bff.ops.redis_keys import Keys
from bff.ops.redis_scripts import Scripts

LUA: Final = Path(__file__).parent / "lua"
MAX_DECLARATIONS: Final = 5
"""Calls of a script in a cluster: the keys to declare change if another process changes the group's order meanwhile."""
CONFIRMED: Final = {"enqueue", "claim", "claim_next", "finish", "release", "stop"}
"""Scripts whose writes nobody repeats if a fail-over loses them."""
INTERRUPTED: Final = final_events.interrupted()[1]
STOPPED: Final = final_events.stopped()[1]


class GroupScripts:
    """The results are described at the top of each script in lua/group/; "lost" is raised as LeaseLost."""

    def __init__(self, client: Client, limits: Limits, lease: str, keys: Keys) -> None:
        """`lease`: µs."""
        self._keys = keys
        self._lease = lease
        self._depth = limits.depth_per_user
        self._log_bytes = limits.log_bytes
        self._retention = (str(int(limits.retention * 1000)), str(limits.log_bytes))
        self._scripts = Scripts(client, LUA / "group", LUA / "time.lua", LUA / "group.lua")

    def of(self, group: str) -> GroupKeys:
        return GroupKeys(self._keys, group)

    def enqueue(self, message: Message, client_message_id: str | None, on_busy: str, *, claim: bool) -> list[Any]:
        """A claim is returned as {'claimed', Claim}."""
        group, nonce = self.of(group_of(message)), new_nonce()
        client_key = group.key(f"c:{digest_of(client_message_id)}" if client_message_id else "q")
        keys = [*group.queue, *group.message(message.id), client_key]
        content = json.dumps(message.content, sort_keys=True)
        fields = (message.id, message.user_id, content, message.size, int(message.cancel_on_disconnect), digest_of(content))
        conditions = (self._depth, on_busy)
        more_fields = (message.trace, message.handler, message.run_scope, message.run_key)
        lease = self._lease if claim else "0"
        arguments = (*fields, *conditions, *more_fields, lease, int(message.repeatable), nonce, message.webhook)
        result: list[Any] = self._run("enqueue", keys, *arguments)
        return ["claimed", claim_of(nonce, *result[1:])] if result[0] == "claimed" else result

    def claim(self, group: str, nonce: str) -> list[Any]:
        """A claim is returned as {'claimed', has deliveries, reaped, Claim}: the same one for the same nonce.

        Without a nonce, only checks.
        """
        arguments = (self._lease if nonce else "0", MAX_CLAIMS, INTERRUPTED, STOPPED, *self._retention, nonce)
        result: list[Any] = self._run("claim", self.of(group).ending, *arguments)
        return ["claimed", *result[1:3], claim_of(nonce, *result[3:])] if result[0] == "claimed" else result

    def claim_next(self, group: str, handler: str) -> Claim | None:
        nonce = new_nonce()
        result: list[Any] = self._run("claim_next", self.of(group).queue, self._lease, handler, nonce)
        return claim_of(nonce, *result) if result else None

    def commit(self, claim: Claim) -> bool:
        return bool(self._run_for_claim("commit", claim, self._run_keys(claim)[:1]))

    def restart(self, claim: Claim, write: Write) -> bool:
        return bool(self._run_for_claim("restart", claim, self._run_keys(claim), write.name))

    def renew(self, claim: Claim) -> str:
        result: str = self._run_for_claim("write", claim, self._run_keys(claim)[:1], self._lease, "", "", 0, self._log_bytes)
        return result

    def write(self, claim: Claim, entries: Sequence[LogEntry], write: Write, *, started: bool) -> str:
        options = (self._lease, *write, int(started), self._log_bytes)
        result: str = self._run_for_claim("write", claim, self._run_keys(claim), *options, *_flatten(entries))
        return result

    def finish(
        self, claim: Claim, entries: Sequence[LogEntry], write: Write, mode: Literal["", "forget", "conclude"]
    ) -> int | str:
        """Returns the number of waiting messages, or a gap."""
        arguments = (*write, *self._retention, mode, *_flatten(entries))
        result: int | str = self._run_for_claim("finish", claim, self._message_keys(claim), *arguments)
        return result

    def release(self, claim: Claim) -> int:
        """Returns the number of waiting messages."""
        arguments = (INTERRUPTED, STOPPED, *self._retention)
        result: int = self._run_for_claim("release", claim, self._message_keys(claim), *arguments)
        return result

    def stop(self, group: str, message_id: str, user_id: str) -> str:
        keys = [*self.of(group).ending, *self.of(group).message(message_id)]
        result: str = self._run("stop", keys, message_id, user_id, STOPPED, *self._retention)
        return result

    def cancel(self, group: str, message_id: str, user_id: str = "", process: str = "") -> str:
        keys = [*self.of(group).ending, *self.of(group).message(message_id), self.of(group).key(f"r:{message_id}")]
        result: str = self._run("cancel", keys, message_id, user_id, process, STOPPED, *self._retention)
        return result

    def continue_without_readers(self, group: str, message_id: str, user_id: str) -> str:
        result: str = self._run("continue_without_readers", self.of(group).message(message_id), message_id, user_id)
        return result

    def positions(self, group: str) -> list[Any]:
        result: list[Any] = self._run("positions", self.of(group).queue)
        return result

    def locate(self, group: str, event_id: str) -> str | None:
        return self._run("locate", self.of(group).queue, event_id) or None

    def _run_keys(self, claim: Claim) -> list[str]:
        group = self.of(group_of(claim.message))
        return [group.key("run"), *group.message(claim.message.id)]

    def _message_keys(self, claim: Claim) -> list[str]:
        group = self.of(group_of(claim.message))
        return [*group.ending, *group.message(claim.message.id)]

    def _run_for_claim(self, script: str, claim: Claim, keys: list[str], *arguments: str | float) -> Any:
        result = self._run(script, keys, claim.message.id, f"{claim.token}-{claim.nonce}", *arguments)
        if result == "lost":
            raise LeaseLost
        return result

    def _run(self, script: str, keys: list[str], *arguments: str | float) -> Any:
        """In a cluster, repeats the call with the keys that the script asks for: see `undeclared` in lua/group.lua."""
        run = self._scripts.run_confirmed if script in CONFIRMED else self._scripts.run
        for _ in range(MAX_DECLARATIONS):
            result = run(script, keys, *arguments)
            if not (isinstance(result, list) and result and result[0] == "keys"):
                return result
            keys = [*keys, *result[1:]]
        raise StorageUnavailable(detail="Redis: the group's order keeps changing")


def new_nonce() -> str:
    return secrets.token_hex(4)


def _flatten(entries: Sequence[LogEntry]) -> Iterator[str]:
    return (text for entry in entries for text in entry)
