"""Two messages of one user."""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

from bff.api.cli.conformance.checks.errors import expect_error
from bff.api.cli.conformance.checks.stopping import slow_reply, stop
from bff.api.cli.conformance.model import check
from bff.api.cli.conformance.outcomes import expect
from bff.api.cli.conformance.sse import TERMINAL
from bff.api.cli.conformance.target import ACTIVE, CHAT, JSON, Target

ON_BUSY: Final = "docs/protocol.md#sending-a-message"
NETWORK_SECONDS: Final = 0.4
"""By which two connections may deliver later or earlier than each other, on a busy machine or network."""


@check(
    "order.queue",
    "A second message of a user waits, and is answered after the first",
    rule="docs/protocol.md#events",
    meaning="Replies are mixed, and a model answers a question before it has finished the one before.",
)
def queue(target: Target) -> str | None:
    user = target.user()
    with (
        user.send(target.options.slow_message) as first,
        user.send("second") as second,
        ThreadPoolExecutor(2) as pool,
    ):
        for reading in [pool.submit(stream.read_all, target.deadline()) for stream in (first, second)]:
            reading.result()
    position = second.logged[0].content.get("position") if second.logged else None
    expect(isinstance(position, int) and position >= 1, f"the second message's first position is {position}")
    ended = [event.frame.at for event in first.logged if event.type in TERMINAL]
    started = [event.frame.at for event in second.logged if event.type == "progress"]
    expect(ended and started, "the first has no end, or the second no text")
    expect(started[0] > ended[0] - NETWORK_SECONDS, f"the second began {ended[0] - started[0]:.2f} s before the first ended")
    return None


@check(
    "order.active",
    "/api/chat/active lists the running and the waiting message",
    rule="docs/protocol.md#routes",
    meaning="A page that is loaded again does not find the replies that are being written.",
)
def active(target: Target) -> str | None:
    user = target.user()
    with slow_reply(target, user) as first, user.send("waiting") as second:
        listed = user.json("GET", ACTIVE).get("messages", [])
        for stream in (second, first):
            stop(user, stream.message_id)
    found = {entry.get("message_id"): entry.get("state") for entry in listed}
    expected = {first.message_id: "running", second.message_id: "queued"}
    expect({message_id: found.get(message_id) for message_id in expected} == expected, f"it lists {listed}")
    return None


@check(
    "order.reject",
    "on_busy=reject refuses a second message with 409",
    rule=ON_BUSY,
    meaning="A client that wants one reply at a time gets a queue instead.",
)
def reject(target: Target) -> str | None:
    user = target.user()
    with slow_reply(target, user) as first:
        with user.request("POST", CHAT, b'{"message": "second", "on_busy": "reject"}', JSON) as response:
            expect_error(target, response, 409, "busy")
        stop(user, first.message_id)
    return None


@check(
    "order.interrupt",
    "on_busy=interrupt stops the running reply and answers the new message",
    rule=ON_BUSY,
    meaning="A user who corrects a question waits for the reply to the wrong one.",
)
def interrupt(target: Target) -> str | None:
    user = target.user()
    with slow_reply(target, user) as first, user.send("second", on_busy="interrupt") as second:
        first.read_all(target.deadline())
        second.read_all(target.deadline())
    expect(first.last and first.last.type == "stopped", f"the first ends with {first.last.type if first.last else 'nothing'}")
    expect(second.last and second.last.type == "complete", f"the new one ends with {second.last.type if second.last else '-'}")
    return None
