"""Reads the logs in Redis."""

from bff.broker.queue.base import PAGE_EVENTS, Page
from bff.broker.queue.log import parse_event_id, parse_event_id_or_none
from bff.broker.queue.redis.group import GroupScripts
from bff.errors import Expired, NotFound
from bff.http.sse import Event
from bff.ops.redis import Client, map_errors
from bff.upstream.message_ids import group_mark, group_mark_of

ID_LIMIT = 2**63
"""Both parts of an event id are smaller."""


class Logs:
    def __init__(self, client: Client, group: GroupScripts) -> None:
        self._client = client
        self._group = group

    def read(self, user_id: str, message_id: str, after: str) -> Page:
        message, log = self._group.of(group_mark_of(message_id, user_id)).message(message_id)
        with map_errors(), self._client.pipeline(transaction=False) as pipe:
            pipe.hmget(message, "state", "user")  # First: if the state is finished, the log is complete.
            pipe.xrange(log, _range_start(after), "+", PAGE_EVENTS)
            (state, owner), entries = pipe.execute()
        if state is None or owner not in {user_id, None}:  # None: finished by an earlier version, in the user's default group.
            raise NotFound
        if after:
            parse_event_id(after)
        if state == "finished" and not entries and not self._exists(log):
            raise Expired(message_id=message_id)
        more = len(entries) == PAGE_EVENTS
        events = [Event(fields["e"], fields["d"], event_id) for event_id, fields in entries]
        return Page(events, state == "finished" and not more, more)

    def locate(self, user_id: str, group: str, event_id: str) -> str | None:
        parsed_id = parse_event_id_or_none(event_id)
        if parsed_id is None or max(parsed_id) >= ID_LIMIT:
            return None
        return self._group.locate(group_mark(user_id, group), f"{parsed_id[0]}-{parsed_id[1]}")

    def _exists(self, log: str) -> bool:
        with map_errors():
            return bool(self._client.exists(log))


def _range_start(after: str) -> str:
    """The start of a range after an event id. A malformed id gives the whole range: `read` raises once it knows the owner."""
    parsed_id = parse_event_id_or_none(after)
    if parsed_id is None:
        return "-"
    return f"({ID_LIMIT - 1}-0" if max(parsed_id) >= ID_LIMIT else f"({parsed_id[0]}-{parsed_id[1]}"
