"""Checks that all readers of one reply received the same end."""

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.faults.load import Stream

CONNECTION_ERRORS = frozenset({"upstream_error", "upstream_unavailable", "upstream_timeout", "server_restarting"})
"""Errors of its own connection, which only a reader that does not resume may receive: it cannot be disconnected to learn
the reply's end later."""
PER_READER_FIELDS = frozenset({"id", "at", "request_id"})
"""Fields that differ between readers."""


def different_ends(streams: Iterable["Stream"]) -> dict[str, list[dict[str, Any]]]:
    """Terminal events by message id, of replies whose readers received different ones."""
    ends_by_message: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for stream in streams:
        if stream.end and not (stream.end in CONNECTION_ERRORS and not stream.resumable):
            end = {name: value for name, value in stream.events[-1].items() if name not in PER_READER_FIELDS}
            if end not in ends_by_message[stream.message_id]:
                ends_by_message[stream.message_id].append(end)
    return {message_id: ends for message_id, ends in ends_by_message.items() if len(ends) > 1}


def assert_same_end(streams: Iterable["Stream"]) -> None:
    different = different_ends(streams)
    assert not different, f"readers of {len(different)} replies received different ends: {different}"
