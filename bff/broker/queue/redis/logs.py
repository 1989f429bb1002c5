"""Reads the logs in Redis.

Where a replica takes over from a primary that fails, it may lack the last events, which readers may have received. So a reader
whose last event is not in the log any more starts anew, and the end of a log is passed on once a replica has it.
"""

from pathlib import Path
from typing import Any, Final, NamedTuple

from bff.broker.queue.base import PAGE_EVENTS, Page
from bff.broker.queue.log import parse_event_id, parse_event_id_or_none
from bff.broker.queue.redis.group import GroupScripts
from bff.broker.queue.redis.keys import GroupKeys, digest_of
from bff.errors import Expired, NotFound, StorageUnavailable
from bff.http.sse import Event
from bff.ops.redis import Client, is_cluster, is_replicated, map_errors
from bff.ops.redis_scripts import Scripts
from bff.upstream.message_ids import group_mark, group_mark_of

ID_LIMIT = 2**63
"""Both parts of an event id are smaller."""
RESTART: Final = Event("message", '{"type":"restart"}', "0-1")
"""Retracts all events before it."""


class _Stored(NamedTuple):
    state: str | None
    owner: str | None
    entries: list[Any]


class Logs:
    def __init__(self, client: Client, group: GroupScripts) -> None:
        self._client = client
        self._group = group
        self._is_replicated = is_replicated(client)
        self._scripts = Scripts(client, Path(__file__).parent / "lua" / "log")

    def read(self, user_id: str, message_id: str, after: str) -> Page:
        group = self._group.of(group_mark_of(message_id, user_id))
        message, log = group.message(message_id)
        includes_after = self._is_replicated and after != ""
        stored = self._fetch(message, log, _range_start(after, includes_it=includes_after), PAGE_EVENTS + includes_after)
        if stored.state is None or stored.owner not in {user_id, None}:
            raise NotFound  # An owner of None: finished by an earlier version, in the user's default group.
        if after:
            parse_event_id(after)
        if includes_after:
            return self._continue(group, message, log, after, stored)
        return self._page(group, message, log, stored)

    def _continue(self, group: GroupKeys, message: str, log: str, after: str, stored: _Stored) -> Page:
        """`stored`: the entries from `after` on. Starts anew if a fail-over has lost that one."""
        if stored.entries and stored.entries[0][0] == after:
            return self._page(group, message, log, stored._replace(entries=stored.entries[1:]), has_log=True)
        if after != RESTART.id and not stored.entries and not self._exists(log):
            return self._page(group, message, log, stored)
        page = self._page(group, message, log, self._fetch(message, log, "-", PAGE_EVENTS))
        return page if after == RESTART.id else page._replace(events=[RESTART, *page.events])

    def _page(self, group: GroupKeys, message: str, log: str, stored: _Stored, *, has_log: bool = False) -> Page:
        if stored.state == "finished" and not stored.entries and not has_log and not self._exists(log):
            raise Expired(message_id=log.partition(":l:")[2])
        more = len(stored.entries) >= PAGE_EVENTS
        events = [Event(fields["e"], fields["d"], event_id) for event_id, fields in stored.entries]
        ended = stored.state == "finished" and not more
        if ended and self._is_replicated:
            self._confirm_end(group, message, log, events[-1].id if events else "-")
        return Page(events, ended, more)

    def _fetch(self, message: str, log: str, start: str, count: int) -> _Stored:
        if is_cluster(self._client):
            state, owner, entries = self._scripts.run("read", [message, log], start, count)
            return _Stored(state, owner, [(event_id, dict(zip(fs[::2], fs[1::2], strict=True))) for event_id, fs in entries])
        with map_errors(), self._client.pipeline(transaction=False) as pipe:
            pipe.hmget(message, "state", "user")  # First: if the state is finished, the log is complete.
            pipe.xrange(log, start, "+", count)
            (state, owner), entries = pipe.execute()
        return _Stored(state, owner, entries)

    def _confirm_end(self, group: GroupKeys, message: str, log: str, last_id: str) -> None:
        """Raises StorageUnavailable if the end was read from a primary that was replaced meanwhile.

        A primary that has been cut off refuses to confirm it, with `min-replicas-to-write`.
        """
        state, _, entries = self._scripts.run_confirmed("read", [message, log, group.key("w")], last_id, 1)
        if state != "finished" or (last_id != "-" and [entry[0] for entry in entries] != [last_id]):
            raise StorageUnavailable(detail="Redis has failed over: the end of a reply was lost")

    def locate(self, user_id: str, group: str, event_id: str) -> str | None:
        parsed_id = parse_event_id_or_none(event_id)
        if parsed_id is None or max(parsed_id) >= ID_LIMIT:
            return None
        return self._group.locate(group_mark(user_id, group), f"{parsed_id[0]}-{parsed_id[1]}")

    def find(self, user_id: str, group: str, client_message_id: str) -> str | None:
        key = self._group.of(group_mark(user_id, group)).key(f"c:{digest_of(client_message_id)}")
        with map_errors():
            known = self._client.get(key)
        return str(known).rpartition(" ")[0] if known else None

    def _exists(self, log: str) -> bool:
        with map_errors():
            return bool(self._client.exists(log))


def _range_start(after: str, *, includes_it: bool) -> str:
    """The start of a range after an event id. A malformed id gives the whole range: `read` raises once it knows the owner."""
    parsed_id = parse_event_id_or_none(after)
    if parsed_id is None:
        return "-"
    start = f"{ID_LIMIT - 1}-0" if max(parsed_id) >= ID_LIMIT else f"{parsed_id[0]}-{parsed_id[1]}"
    return start if includes_it else f"({start}"
