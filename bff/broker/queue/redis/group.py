"""Calls of the Lua scripts that change one group's queue. Every method raises StorageUnavailable; some raise ServerFull."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from bff.broker import final_events
from bff.broker.queue.base import MAX_CLAIMS, Claim, LeaseLost, Limits, LogEntry, Message
from bff.broker.queue.redis.keys import digest_of, group_of, queue_key
from bff.ops.redis import Client, Scripts, key_prefix

LUA: Final = Path(__file__).parent / "lua"
INTERRUPTED: Final = final_events.interrupted()[1]
STOPPED: Final = final_events.stopped()[1]


class GroupScripts:
    """The results are described at the top of each script in lua/group/; "lost" is raised as LeaseLost."""

    def __init__(self, client: Client, limits: Limits, lease: str) -> None:
        """`lease`: µs."""
        self._lease = lease
        self._depth = limits.depth_per_user
        self._log_bytes = limits.log_bytes
        self._retention = (str(int(limits.retention * 1000)), str(limits.log_bytes))
        self._scripts = Scripts(client, LUA / "group", prelude=(LUA / "group.lua").read_text(encoding="utf-8"))

    def enqueue(self, message: Message, client_message_id: str | None, on_busy: str, *, claim: bool) -> list[Any]:
        group = group_of(message)
        keys = [f"{key_prefix(group)}c:{digest_of(client_message_id)}"] if client_message_id else []
        content = json.dumps(message.content, sort_keys=True)
        fields = (message.id, message.user_id, content, message.size, int(message.cancel_on_disconnect), digest_of(content))
        conditions = (self._depth, on_busy)
        more_fields = (message.trace, message.handler, message.run_scope, message.run_key)
        lease = self._lease if claim else "0"
        arguments = (*fields, *conditions, *more_fields, lease, int(message.repeatable))
        result: list[Any] = self._scripts.run("enqueue", [queue_key(group), *keys], *arguments)
        return result

    def claim(self, group: str, *, only_check: bool = False) -> list[Any]:
        lease = "0" if only_check else self._lease
        arguments = (lease, MAX_CLAIMS, INTERRUPTED, STOPPED, *self._retention)
        result: list[Any] = self._scripts.run("claim", [queue_key(group)], *arguments)
        return result

    def claim_next(self, group: str, handler: str) -> list[Any]:
        result: list[Any] = self._scripts.run("claim_next", [queue_key(group)], self._lease, handler)
        return result

    def commit(self, claim: Claim) -> bool:
        return bool(self._run_for_claim("commit", claim))

    def restart(self, claim: Claim) -> bool:
        return bool(self._run_for_claim("restart", claim))

    def write(self, claim: Claim, entries: Sequence[LogEntry], name: str, *, started: bool) -> str:
        options = (self._lease, name, int(started), self._log_bytes)
        result: str = self._run_for_claim("write", claim, *options, *_flatten(entries))
        return result

    def finish(self, claim: Claim, entries: Sequence[LogEntry], name: str, mode: Literal["", "forget", "conclude"]) -> int:
        """Returns the number of waiting messages."""
        result: int = self._run_for_claim("finish", claim, name, *self._retention, mode, *_flatten(entries))
        return result

    def release(self, claim: Claim) -> int:
        """Returns the number of waiting messages."""
        result: int = self._run_for_claim("release", claim, INTERRUPTED, STOPPED, *self._retention)
        return result

    def stop(self, group: str, message_id: str, user_id: str) -> str:
        return self._run_for_message("stop", group, message_id, user_id, STOPPED, *self._retention)

    def cancel(self, group: str, message_id: str, user_id: str = "", process: str = "") -> str:
        return self._run_for_message("cancel", group, message_id, user_id, process, STOPPED, *self._retention)

    def continue_without_readers(self, group: str, message_id: str, user_id: str) -> str:
        return self._run_for_message("continue_without_readers", group, message_id, user_id)

    def positions(self, group: str) -> list[Any]:
        result: list[Any] = self._scripts.run("positions", [queue_key(group)])
        return result

    def locate(self, group: str, event_id: str) -> str | None:
        return self._scripts.run("locate", [queue_key(group)], event_id) or None

    def _run_for_claim(self, script: str, claim: Claim, *arguments: str | float) -> Any:
        key = queue_key(group_of(claim.message))
        result = self._scripts.run(script, [key], claim.message.id, claim.token, *arguments)
        if result == "lost":
            raise LeaseLost
        return result

    def _run_for_message(self, script: str, group: str, message_id: str, *arguments: str) -> str:
        result: str = self._scripts.run(script, [queue_key(group)], message_id, *arguments)
        return result


def _flatten(entries: Sequence[LogEntry]) -> Iterator[str]:
    return (text for entry in entries for text in entry)
