"""How a stream ends, and its heartbeats."""

from itertools import pairwise
from time import monotonic
from typing import Any, Final

from bff.api.cli.conformance.checks.framing import EVENTS
from bff.api.cli.conformance.model import check
from bff.api.cli.conformance.outcomes import Failed, Skipped, expect
from bff.api.cli.conformance.sse import HEARTBEAT, TERMINAL, EventStream
from bff.api.cli.conformance.target import CHAT, Target

ERROR_MESSAGE: Final = "/error"
"""An agent that knows it fails; any other one replies to it."""
LATENESS: Final = 1.5
"""Seconds by which a heartbeat may be late on a busy machine or network."""


@check(
    "end.one",
    "A stream has exactly one terminal event, as its last, and ends cleanly",
    rule=EVENTS,
    meaning="The page shows a reply as running forever, replaces it by another end, or reports an error after success.",
)
def one_end(target: Target) -> str | None:
    expect_one_end(target.sample())
    return None


def expect_one_end(stream: EventStream) -> None:
    """Of a stream that was read to its end. Raises Failed."""
    types = [event.type for event in stream.events]
    ends = [name for name in types if name in TERMINAL]
    expect(ends, f"there is no terminal event; the last one is {types[-1] if types else 'missing'}")
    expect(len(ends) == 1, f"there are {len(ends)} terminal events: {', '.join(ends)}")
    expect(types[-1] in TERMINAL, f"after {ends[0]} comes {types[-1]}")
    after = stream.raw.rpartition(stream.events[-1].frame.raw)[2]
    expect(not after, f"after the terminal event come {len(after)} bytes: {after[:40]!r}")
    expect(stream.response.ended == "clean", f"the response's body is not complete: {stream.response.ended}")


@check(
    "end.complete",
    "complete has the whole reply",
    rule=EVENTS,
    meaning="Clients that show the final text, and those that ignore pieces, show nothing.",
)
def complete(target: Target) -> str | None:
    last = target.sample().last
    expect(last and last.type == "complete", f"the reply ends with {(last and last.type) or 'nothing that can be read'}")
    response: Any = last.content.get("response") if last else None
    responses = response.get("responses") if isinstance(response, dict) else None
    is_valid = isinstance(responses, list) and all(isinstance(text, str) for text in responses)
    expect(is_valid, f"complete has no response.responses, a list of strings: {last.frame.raw[:120]!r}" if last else "")
    return None


@check(
    "end.error",
    "A reply that fails ends with one error that has a sentence, a code and the request's id",
    rule=EVENTS,
    meaning="Users are not told that the reply failed, or the page cannot choose what to say about it.",
)
def error(target: Target) -> str | None:
    with target.user().send(ERROR_MESSAGE) as stream:
        stream.read_all(target.deadline())
    expect_one_end(stream)
    last = stream.events[-1]
    if last.type != "error":
        raise Skipped(f"the agent does not fail when it is sent {ERROR_MESSAGE}")
    for field in ("error", "code", "request_id"):
        expect(isinstance(last.content.get(field), str), f"the error has no {field}: {last.frame.raw[:120]!r}")
    expect(last.content["request_id"] == stream.response.header("x-request-id"), "its request_id is not the response's")
    return None


@check(
    "end.seen",
    "A client that has received the end gets 204",
    rule=EVENTS,
    meaning="EventSource reconnects after every clean end, and would do so forever.",
)
def seen(target: Target) -> str | None:
    sample = target.sample()
    last = sample.last
    if not last or not last.id:
        raise Failed("the last event has no id: see framing.ids")
    with target.sample_user.request("GET", f"{CHAT}/{sample.message_id}", headers={"Last-Event-ID": last.id}) as response:
        expect(response.status == 204, f"the status is {response.status}")
    return None


@check(
    "heartbeat.silence",
    "A silent stream has a heartbeat, which has no id",
    rule=EVENTS,
    meaning="Routers and proxies cut connections that are silent (Heroku after 55 s), and clients take them for dead.",
)
def heartbeat(target: Target) -> str | None:
    seconds = target.options.heartbeat
    user = target.user()
    with user.send(f"/silence {seconds + LATENESS:g}") as stream:
        began = monotonic()
        stream.read_until("progress", target.deadline(seconds * 3 + target.options.timeout))
        if stream.message_id:
            user.stop(stream.message_id).close()
    moments = [began, *(frame.at for frame in stream.frames if frame.at > began)]
    silence = max(later - earlier for earlier, later in pairwise(moments)) if len(moments) > 1 else 0.0
    beats = [frame for frame in stream.frames if frame.is_comment or frame.content.get("type") == HEARTBEAT]
    if not beats and silence < seconds:
        raise Skipped("the agent is not silent when it is sent /silence")
    expect(beats, f"nothing was sent for {silence:.1f} s; --heartbeat says {seconds:g}")
    expect(not any(frame.values("id") for frame in beats), "a heartbeat has an id")
    expect(silence <= seconds + LATENESS, f"the stream was silent for {silence:.1f} s; --heartbeat says {seconds:g}")
    return f"the longest silence was {silence:.1f} s"
