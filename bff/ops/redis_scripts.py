"""Lua scripts, and writes that survive a fail-over.

Redis replicates asynchronously: a primary that fails may take its last writes along. One that was frozen or cut off, and was
replaced meanwhile, even accepts writes for a moment once it is back, until it learns that it is a replica.
"""

from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha1
from pathlib import Path
from time import monotonic
from typing import Any, Final, NamedTuple, cast

from redis.exceptions import AskError, MovedError, NoScriptError, RedisError, TryAgainError

from bff.errors import StorageUnavailable
from bff.ops.redis import Client, is_cluster, is_replicated, is_sharded, map_errors
from bff.ops.redis_cluster import ClusterClient
from bff.ops.redis_pool import Address
from bff.ops.redis_sentinel import SentinelPool

WAIT_MILLISECONDS: Final = 200
"""For a replica to receive a write, which takes a round trip between the servers."""
WITHOUT_REPLICA_SECONDS: Final = 1.0
"""After a wait in vain, calls to that server do not wait."""
SLOT_ERRORS: Final = (MovedError, AskError, TryAgainError)
"""A slot has moved to another server, or is moving. redis-py's client of the cluster follows it."""


class Scripts:
    """Runs the Lua scripts of a folder by file name; `preludes` are prepended to each. They may read CLUSTER and SHARDED."""

    def __init__(self, client: Client, folder: Path, *preludes: Path) -> None:
        self._client = client
        self._is_replicated = is_replicated(client)
        prelude = "".join(path.read_text(encoding="utf-8") for path in preludes)
        self._files = {path.stem: prelude + path.read_text(encoding="utf-8") for path in folder.glob("*.lua")}
        self._scripts: dict[str, _Script] = {}
        """Complete once the first one runs, for which the server has to be asked whether it is SHARDED."""
        self._wait_again_at: dict[Address, float] = {}

    def run(self, name: str, keys: Sequence[str], *arguments: str | float) -> Any:
        """In a cluster, all keys are in one slot. Raises StorageUnavailable, ServerFull."""
        script = self._script(name)
        with map_errors():
            try:
                return self._client.evalsha(script.digest, len(keys), *keys, *arguments)
            except NoScriptError:  # Redis was restarted, or has flushed its scripts; the script has not run.
                return self._client.eval(script.text, len(keys), *keys, *arguments)

    def run_for_each(self, name: str, keys: Sequence[str]) -> list[Any]:
        """Runs it once for each key: in one round trip, but in a cluster. Raises StorageUnavailable, ServerFull."""
        if not is_cluster(self._client):
            script = self._script(name)
            with map_errors(), suppress(NoScriptError), self._client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.evalsha(script.digest, 1, key)
                return list(pipe.execute())
        return [self.run(name, [key]) for key in keys]

    def run_confirmed(self, name: str, keys: Sequence[str], *arguments: str | float) -> Any:
        """Like `run`; what it writes is not lost if the server fails later, as a replica has it, unless there is none.

        Raises StorageUnavailable if another server has become the primary, which may lack it.
        """
        if not self._is_replicated:
            return self.run(name, keys, *arguments)
        script = self._script(name)
        with map_errors():
            server, address = _server_of(self._client, keys[0])
            try:
                result, has_replica = self._run_and_wait(server, address, script, (len(keys), *keys, *arguments))
            except RedisError as error:
                _refresh(self._client)
                if isinstance(error, SLOT_ERRORS):
                    return self.run(name, keys, *arguments)
                raise
        if not has_replica and _primary_of(self._client, keys[0], address) != address:
            raise StorageUnavailable(detail="Redis has failed over: a write may be lost")
        return result

    def _run_and_wait(
        self, server: Client, address: Address, script: "_Script", arguments: tuple[Any, ...]
    ) -> tuple[Any, bool]:
        """Returns the script's result, and whether a replica has received what it wrote."""
        waits = monotonic() >= self._wait_again_at.get(address, 0)
        try:
            result, replicas = _pipeline(server, ("EVALSHA", script.digest, *arguments), waits=waits)
        except NoScriptError:
            result, replicas = _pipeline(server, ("EVAL", script.text, *arguments), waits=waits)
        if waits and not replicas:
            self._wait_again_at[address] = monotonic() + WITHOUT_REPLICA_SECONDS
        return result, replicas > 0

    def _script(self, name: str) -> "_Script":
        if not self._scripts:  # Threads that start at the same time all do this, with the same result.
            flags = [str(flag).lower() for flag in (is_cluster(self._client), is_sharded(self._client))]
            first_line = f"local CLUSTER, SHARDED = {', '.join(flags)}\n"
            self._scripts = {file: _Script.of(first_line + text) for file, text in self._files.items()}
        return self._scripts[name]


class _Script(NamedTuple):
    text: str
    digest: str

    @classmethod
    def of(cls, text: str) -> "_Script":
        return cls(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def _pipeline(server: Client, command: tuple[Any, ...], *, waits: bool) -> tuple[Any, int]:
    """Sends the command, and a WAIT over the same connection. Returns the result, and how many replicas have what it wrote."""
    pipe: Any
    with server.pipeline(transaction=False) as pipe:
        pipe.execute_command(*command)
        if waits:
            pipe.execute_command("WAIT", 1, WAIT_MILLISECONDS)
        result, *replicas = pipe.execute()
    return result, replicas[0] if waits else 0


def _server_of(client: Client, key: str) -> tuple[Client, Address]:
    """The client of the server that has the key, as far as known, and that server's address. Raises StorageUnavailable."""
    if isinstance(client, ClusterClient):
        return client.server_of(key)
    with map_errors():
        return client, cast(SentinelPool, client.connection_pool).known_address()


def _primary_of(client: Client, key: str, replaced: Address) -> Address:
    """Asks the Sentinels, or the cluster's other nodes, as the possibly `replaced` one may not know it yet."""
    if isinstance(client, ClusterClient):
        return client.ask_primary_of(key, replaced)
    pool = cast(SentinelPool, client.connection_pool)
    pool.ask()
    return pool.known_address()


def _refresh(client: Client) -> None:
    if isinstance(client, ClusterClient):
        client.refresh()
