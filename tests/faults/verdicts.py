"""What holds for all replies of a crowd, however many processes died meanwhile."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from bff.broker.queue.base import MAX_RESTARTS
from tests.faults.load import TERMINAL, Crowd, Stream, all_over, in_order
from tests.live import text_of

DEADLINE = 60.0


def more_readers(crowd: Crowd, streams: list[Stream]) -> tuple[list[Stream], list[Stream]]:
    """A tab of each tenth answer, and a reader of some that does not come back: see tests/faults/judge.py."""
    begun = [stream for stream in streams if stream.message_id]
    return [crowd.follow(stream) for stream in begun[::10]], [crowd.say_again(one, comes_back=False) for one in begun[5::20]]


def number_of(event: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(part) for part in event["id"].split("-"))


def left_at(stream: Stream) -> tuple[Any, ...]:
    """Two may be left in the same millisecond: then the later one has more before it."""
    return (*number_of(stream.events[0]), stream.events[0]["position"])


def began_at(stream: Stream) -> tuple[int, ...]:
    return next(number_of(event) for event in stream.events if event.get("message") == "Processing...")


def spoke_at(stream: Stream) -> tuple[int, ...]:
    return next(number_of(event) for event in stream.events if event["type"] == "progress")


def ended_at(stream: Stream) -> tuple[int, ...]:
    return number_of(stream.events[-1])


def assert_one_after_the_other(streams: list[Stream], began: Callable[[Stream], tuple[int, ...]] = began_at) -> None:
    """Of each user, in the order in which they were left: none began before the one before it had ended."""
    for user in {stream.user for stream in streams}:
        those = sorted((stream for stream in streams if stream.user == user), key=began)
        for stream, following in pairwise(those):
            assert left_at(stream) <= left_at(following), (stream.events, following.events)
            assert ended_at(stream) <= began(following), (stream.events, following.events)


def said(stream: Stream) -> list[dict[str, Any]]:
    """Whichever request it was the answer to."""
    return [without(event, "request_id") for event in stream.said]


def without(event: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in names}


def assert_kept_as_they_were_told(crowd: Crowd, streams: list[Stream]) -> None:
    again = [crowd.follow(stream) for stream in streams]
    assert crowd.wait_for(all_over(again), DEADLINE)
    for stream, followed in zip(streams, again, strict=True):
        assert said(stream) == said(followed)


def assert_answered_exactly(stream: Stream) -> None:
    """By an agent that repeats its message: wholly, once, and each time it began anew from the start."""
    assert in_order(stream.events), stream.events
    *taken_back, text = [text_of(run) for run in stream.runs]
    assert all(stream.message.startswith(before) for before in taken_back), stream.events
    if stream.end == "complete":
        assert text == stream.message, stream.events
        assert stream.events[-1]["response"]["responses"] == [stream.message]
    else:
        assert (stream.end, stream.restarts) == ("interrupted", MAX_RESTARTS), stream.events
        assert stream.message.startswith(text), stream.events


def read_again(crowd: Crowd, streams: list[Stream]) -> list[Stream]:
    """Whoever reads it again is told the text and the end that count, under the same ids.

    Of one that was interrupted, a process that died may have told some words more than it had written down.
    """
    again = [crowd.follow(stream) for stream in streams]
    assert crowd.wait_for(all_over(again), DEADLINE)
    for stream, followed in zip(streams, again, strict=True):
        told, kept = last_run(stream), last_run(followed)
        assert kept[-1] == told[-1], (stream.events, followed.events)
        assert kept[:-1] == (told[:-1] if stream.end == "complete" else told[: len(kept) - 1]), (stream.events, followed.events)
    return again


def last_run(stream: Stream) -> list[dict[str, Any]]:
    return [without(event, "at", "request_id") for event in stream.runs[-1] if event["type"] in TERMINAL | {"progress"}]
