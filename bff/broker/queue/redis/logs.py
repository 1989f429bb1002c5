"""The logs in Redis, read: a page of one, and where an event is."""

from bff.broker.queue.base import PAGE_EVENTS, Page
from bff.broker.queue.log import parsed, parsed_or_none
from bff.errors import Expired, NotFound
from bff.http.sse import Event
from bff.ops.redis import Client, Scripts, keys_of, map_errors
from bff.upstream.message_ids import group_mark, group_mark_of

NUMBER_MOST = 2**63
"""Ids are smaller, there and here."""


class Logs:
    def __init__(self, client: Client, scripts: Scripts) -> None:
        self._client = client
        self._scripts = scripts

    def read(self, user_id: str, message_id: str, after: str) -> Page:
        keys = keys_of(group_mark_of(message_id, user_id))
        with map_errors(), self._client.pipeline(transaction=False) as pipe:
            pipe.hmget(f"{keys}m:{message_id}", "state", "user")  # First: if it says finished, the log is whole.
            pipe.xrange(f"{keys}l:{message_id}", _start(after), "+", PAGE_EVENTS)
            (state, owner), entries = pipe.execute()
        if state is None or owner not in {user_id, None}:  # None: finished by an earlier version, in the user's own group.
            raise NotFound
        if after:
            parsed(after)
        if state == "finished" and not entries and not self._is_kept(f"{keys}l:{message_id}"):
            raise Expired(message_id=message_id)
        more = len(entries) == PAGE_EVENTS
        return Page([Event(said["e"], said["d"], at) for at, said in entries], state == "finished" and not more, more)

    def locate(self, user_id: str, group: str, event_id: str) -> str | None:
        number = parsed_or_none(event_id)
        if number is None or max(number) >= NUMBER_MOST:
            return None
        queue = f"{keys_of(group_mark(user_id, group))}q"
        return self._scripts.run("locate", [queue], f"{number[0]}-{number[1]}") or None

    def _is_kept(self, log: str) -> bool:
        with map_errors():
            return bool(self._client.exists(log))


def _start(after: str) -> str:
    """Of the range after an event; of all, where `after` is no id of ours, which the message's owner is refused for."""
    number = parsed_or_none(after)
    if number is None:
        return "-"
    return f"({NUMBER_MOST - 1}-0" if max(number) >= NUMBER_MOST else f"({number[0]}-{number[1]}"
