"""A reply is followed from its start, resumed after each event, and survives a client that leaves."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from bff.api.cli.conformance.checks.framing import EVENTS
from bff.api.cli.conformance.model import check
from bff.api.cli.conformance.outcomes import Failed, Skipped, expect
from bff.api.cli.conformance.sse import Event, EventStream
from bff.api.cli.conformance.target import Target, User

AT_ONCE: Final = 8
"""Streams of one user that are open at the same time, well below the usual limit."""
LIVE_READERS: Final = 16


def frames_of(events: Sequence[Event]) -> list[bytes]:
    """The bytes that all readers of a reply receive."""
    return [event.frame.without_retry for event in events]


def expect_same_events(found: Sequence[Event], expected: Sequence[Event], where: str) -> None:
    """Compares contents and ids. Raises Failed, which names the first difference."""
    keys, wanted = [event.key for event in found], [event.key for event in expected]
    if keys == wanted:
        return
    extra = [key for key in keys if key not in wanted]
    missing = [key for key in wanted if key not in keys]
    repeated = [key for key in keys if keys.count(key) > 1]
    for name, some in (("repeated", repeated), ("missing", missing), ("unexpected", extra)):
        expect(not some, f"{where}: {len(some)} events are {name}, the first is {some[0] if some else ''}")
    expect(False, f"{where}: events come in another order")


def _numbered_sample(target: Target) -> EventStream:
    sample = target.sample()
    if not all(event.id for event in sample.logged):
        raise Failed("events have no ids, so nothing can be resumed: see framing.ids")
    return sample


@check(
    "resume.start",
    "A reply that is followed from its start has the same events, ids and bytes",
    rule=EVENTS,
    meaning="A second tab, or a page that was loaded again, shows another text.",
)
def from_start(target: Target) -> str | None:
    sample = target.sample()
    with target.sample_user.follow(sample.message_id) as stream:
        stream.read_all(target.deadline())
    expect_same_events(stream.logged, sample.logged, "from the start")
    expect(frames_of(stream.logged) == frames_of(sample.logged), "the same events have other bytes")
    return None


@check(
    "resume.every-event",
    "After each event of a finished reply, Last-Event-ID gets exactly the rest",
    rule=EVENTS,
    meaning="After a lost connection some words are missing or shown twice.",
)
def every_event(target: Target) -> str | None:
    sample = _numbered_sample(target)

    def resume_after(index: int) -> None:
        with target.sample_user.follow(sample.message_id, after=sample.logged[index].id) as stream:
            stream.read_all(target.deadline())
        expect_same_events(stream.logged, sample.logged[index + 1 :], f"after event {index + 1}")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(resume_after, range(len(sample.logged) - 1)))
    return f"{len(sample.logged) - 1} cuts"


@check(
    "resume.running",
    "Clients that are cut after each event of a running reply get exactly the rest",
    rule=EVENTS,
    meaning="A lost connection while the reply is written loses words, or shows them twice.",
)
def running(target: Target) -> str | None:
    user = target.user()
    with user.send(target.options.slow_message) as stream, ThreadPoolExecutor(LIVE_READERS) as pool:
        readers = [pool.submit(_cut_and_resume, target, user, stream.message_id, n + 1) for n in range(LIVE_READERS)]
        stream.read_all(target.deadline())
        for number, reader in enumerate(readers):
            expect_same_events(reader.result(), stream.logged, f"cut after event {number + 1}")
    return f"{LIVE_READERS} clients"


def _cut_and_resume(target: Target, user: User, message_id: str, count: int) -> list[Event]:
    """The events that a client receives that is cut after `count` of them."""
    with user.follow(message_id) as stream:
        first = stream.read_events(count, target.deadline())
        if stream.is_finished or not first or not first[-1].id:
            return stream.read_all(target.deadline()).logged
        stream.response.reset()
    with user.follow(message_id, after=first[-1].id) as rest:
        return [*first, *rest.read_all(target.deadline()).logged]


@check(
    "resume.query",
    "?last_event_id= resumes like the header",
    rule="docs/protocol.md#routes",
    meaning="Clients that cannot set headers, such as a new EventSource, start from the beginning and repeat text.",
)
def query(target: Target) -> str | None:
    sample = _numbered_sample(target)
    middle = len(sample.logged) // 2
    with target.sample_user.follow(sample.message_id, query=f"?last_event_id={sample.logged[middle].id}") as stream:
        stream.read_all(target.deadline())
    expect_same_events(stream.logged, sample.logged[middle + 1 :], "with the query")
    return None


@check(
    "resume.post",
    "A POST sent again with Last-Event-ID and its key continues after that event",
    rule=EVENTS,
    meaning="Clients that repeat their request, as fetch-based EventSources do, show text twice.",
)
def by_post(target: Target) -> str | None:
    user, headers = target.user(), {"Idempotency-Key": target.key()}
    with user.send("resume by post", headers) as stream:
        stream.read_all(target.deadline())
    expect(all(event.id for event in stream.logged), "events have no ids, so nothing can be resumed: see framing.ids")
    with user.send("resume by post", headers | {"Last-Event-ID": stream.logged[1].id}) as again:
        again.read_all(target.deadline())
    expect_same_events(again.logged, stream.logged[2:], "after event 2")
    return None


@check(
    "resume.early-leave",
    "A client that leaves before the first event finds the whole reply later",
    rule=EVENTS,
    meaning="A user who closes the tab, or whose phone loses its network, loses the reply.",
)
def early_leave(target: Target) -> str | None:
    user = target.user()
    with user.send(target.options.slow_message) as stream:
        if stream.response.header("x-on-disconnect") == "cancel":
            raise Skipped("the server cancels replies without a reader, as X-On-Disconnect says")
        stream.response.reset()
    with user.follow(stream.message_id) as later:
        later.read_all(target.deadline())
    expect(later.last and later.last.type == "complete", f"the reply ends with {later.last.type if later.last else 'nothing'}")
    sample_text = target.sample().text if target.repeats_messages() else later.text
    expect(later.text == sample_text, f"the reply is {later.text!r}")
    return None
