"""Stopping a reply."""

from time import monotonic
from typing import Final

from bff.api.cli.conformance.checks.ends import expect_one_end
from bff.api.cli.conformance.checks.resuming import expect_same_events
from bff.api.cli.conformance.model import check
from bff.api.cli.conformance.outcomes import expect
from bff.api.cli.conformance.sse import EventStream
from bff.api.cli.conformance.target import Target, User

ROUTES: Final = "docs/protocol.md#routes"
LONG: Final = 0.7
"""How long a reply runs that is to be stopped, as a part of the timeout."""
STOP_SECONDS: Final = 5.0
"""From the stop to the end of the stream."""


def stop(user: User, message_id: str) -> None:
    """Raises Failed for another status than 202."""
    with user.stop(message_id) as response:
        expect(response.status == 202, f"the stop was answered with {response.status}")


def slow_reply(target: Target, user: User) -> EventStream:
    """The stream of a reply that would run for long, after its first piece.

    Where the agent knows no `/slow`, it is the slow message's.
    """
    slow = target.options.slow_message
    message = f"/slow {target.options.timeout * LONG:g} {slow.split(' ', 2)[-1]}" if slow.startswith("/slow ") else slow
    stream = user.send(message)
    stream.read_until("progress", target.deadline())
    return stream


@check(
    "stop.ends",
    "A stop ends the reply for all its readers with `stopped` and the text so far",
    rule=ROUTES,
    meaning="The stop button does nothing: the reply goes on, and so do its costs.",
)
def ends(target: Target) -> str | None:
    user = target.user()
    with slow_reply(target, user) as stream, user.follow(stream.message_id) as tab:
        stopped_at = monotonic()
        stop(user, stream.message_id)
        for reader in (stream, tab):
            reader.read_all(target.deadline())
            expect_one_end(reader)
            expect(reader.events[-1].type == "stopped", f"a reader's stream ends with {reader.events[-1].type}")
    seconds = monotonic() - stopped_at
    expect(seconds < STOP_SECONDS, f"the streams ended {seconds:.1f} s after the stop")
    response = stream.events[-1].content.get("response")
    expect(isinstance(response, dict) and response.get("responses"), "`stopped` has not the text so far")
    return f"after {seconds:.2f} s"


@check(
    "stop.idempotent",
    "A second stop, or one after the end, is 202 and changes nothing",
    rule=ROUTES,
    meaning="A second click shows an error, or ends another message.",
)
def idempotent(target: Target) -> str | None:
    sample = target.sample()
    for _ in range(2):
        stop(target.sample_user, sample.message_id)
    with target.sample_user.follow(sample.message_id) as stream:
        stream.read_all(target.deadline())
    expect_same_events(stream.logged, sample.logged, "after a stop of a finished reply")
    return None


@check(
    "stop.queued",
    "A stop takes a waiting message out of the queue and leaves the running one alone",
    rule=ROUTES,
    meaning="A message that was sent by mistake cannot be taken back, or its stop ends another reply.",
)
def queued(target: Target) -> str | None:
    user = target.user()
    with slow_reply(target, user) as first, user.send("waiting") as second:
        second.read_events(1, target.deadline())
        stop(user, second.message_id)
        second.read_all(target.deadline())
        is_running = not first.is_finished
        stop(user, first.message_id)
    expect(second.last and second.last.type == "stopped", f"it ends with {second.last.type if second.last else 'nothing'}")
    expect(not second.text, f"it was answered all the same: {second.text!r}")
    expect(is_running, "the running reply has ended, too")
    return None
