"""Checks of all replies of a load test, however many processes died meanwhile."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from bff.broker.queue.base import MAX_RESTARTS
from tests.faults.load import TERMINAL, Clients, Stream, all_done, in_order
from tests.live import text_of

DEADLINE = 60.0


def add_readers(clients: Clients, streams: list[Stream]) -> tuple[list[Stream], list[Stream]]:
    """Follows every tenth reply, and resends some messages as clients that do not resume."""
    known = [stream for stream in streams if stream.message_id]
    followers = [clients.follow(stream) for stream in known[::10]]
    return followers, [clients.resend(stream, resumable=False) for stream in known[5::20]]


def event_number(event: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(part) for part in event["id"].split("-"))


def enqueued_at(stream: Stream) -> tuple[Any, ...]:
    """Includes the position in the queue, as two messages may be enqueued in the same millisecond."""
    return (*event_number(stream.events[0]), stream.events[0]["position"])


def started_at(stream: Stream) -> tuple[int, ...]:
    return next(event_number(event) for event in stream.events if event.get("message") == "Processing...")


def first_token_at(stream: Stream) -> tuple[int, ...]:
    return next(event_number(event) for event in stream.events if event["type"] == "progress")


def ended_at(stream: Stream) -> tuple[int, ...]:
    return event_number(stream.events[-1])


def assert_sequential(streams: list[Stream], started: Callable[[Stream], tuple[int, ...]] = started_at) -> None:
    """Checks that each user's replies run in the order of their messages, and that none starts before the previous one ends."""
    for user in {stream.user for stream in streams}:
        ordered = sorted((stream for stream in streams if stream.user == user), key=started)
        for stream, following in pairwise(ordered):
            assert enqueued_at(stream) <= enqueued_at(following), (stream.events, following.events)
            assert ended_at(stream) <= started(following), (stream.events, following.events)


def numbered_events(stream: Stream) -> list[dict[str, Any]]:
    """The events with an id, without `request_id`."""
    return [without(event, "request_id") for event in stream.numbered_events]


def without(event: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in names}


def assert_stored_as_received(clients: Clients, streams: list[Stream]) -> None:
    followers = [clients.follow(stream) for stream in streams]
    assert clients.wait_for(all_done(followers), DEADLINE)
    for stream, followed in zip(streams, followers, strict=True):
        assert numbered_events(stream) == numbered_events(followed), (stream.events, followed.events)


def assert_exact_reply(stream: Stream) -> None:
    """Checks an echoed reply: complete, and after each restart from the start."""
    assert in_order(stream.events), stream.events
    *discarded, text = [text_of(run) for run in stream.runs]
    assert all(stream.message.startswith(before) for before in discarded), stream.events
    if stream.end == "complete":
        assert text == stream.message, stream.events
        assert stream.events[-1]["response"]["responses"] == [stream.message]
    else:
        assert (stream.end, stream.restarts) == ("interrupted", MAX_RESTARTS), stream.events
        assert stream.message.startswith(text), stream.events


def assert_reread(clients: Clients, streams: list[Stream]) -> list[Stream]:
    """Reads the replies again, and checks that text, end and ids are the same.

    A process that died may have sent a few more words of an interrupted reply than it had logged.
    """
    followers = [clients.follow(stream) for stream in streams]
    assert clients.wait_for(all_done(followers), DEADLINE)
    for stream, followed in zip(streams, followers, strict=True):
        received, stored = last_run(stream), last_run(followed)
        assert stored[-1] == received[-1], (stream.events, followed.events)
        assert stored[:-1] == (received[:-1] if stream.end == "complete" else received[: len(stored) - 1]), (
            stream.events,
            followed.events,
        )
    return followers


def last_run(stream: Stream) -> list[dict[str, Any]]:
    return [without(event, "at", "request_id") for event in stream.runs[-1] if event["type"] in TERMINAL | {"progress"}]
