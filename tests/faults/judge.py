"""What holds for all readers of one answer, whatever happens: no two of them are told different ends."""

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.faults.load import Stream

OWN_CONNECTION = frozenset({"upstream_error", "upstream_unavailable", "upstream_timeout", "server_restarting"})
"""What a reader that does not come back may be told of its own connection, while others are told how the answer ended:
it cannot be sent away to learn that later. Nothing else is allowed, and nobody else is allowed this."""
OF_THE_REQUEST = frozenset({"id", "at", "request_id"})
"""What differs from reader to reader."""


def different_ends(streams: Iterable["Stream"]) -> dict[str, list[dict[str, Any]]]:
    """By message id, the terminal events of answers whose readers were told more than one."""
    told: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for stream in streams:
        if stream.end and not (stream.end in OWN_CONNECTION and not stream.comes_back):
            end = {name: value for name, value in stream.events[-1].items() if name not in OF_THE_REQUEST}
            if end not in told[stream.message_id]:
                told[stream.message_id].append(end)
    return {message_id: ends for message_id, ends in told.items() if len(ends) > 1}


def assert_told_the_same_end(streams: Iterable["Stream"]) -> None:
    different = different_ends(streams)
    assert not different, f"readers of {len(different)} answers were told different ends: {different}"
