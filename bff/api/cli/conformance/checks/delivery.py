"""When events arrive: buffering on the way, and clients that read slowly."""

from time import sleep
from typing import Final

from bff.api.cli.conformance.checks.ends import expect_one_end
from bff.api.cli.conformance.checks.resuming import expect_same_events
from bff.api.cli.conformance.model import check
from bff.api.cli.conformance.outcomes import Skipped, expect
from bff.api.cli.conformance.sse import EventStream
from bff.api.cli.conformance.target import Target

BURST_SECONDS: Final = 0.05
"""Events within this time arrived together."""
MIN_SECONDS: Final = 0.5
"""A reply must take this long for its arrival times to say anything."""
MIN_EVENTS: Final = 8
PAUSE_SECONDS: Final = 2.0
SMALL_BUFFER: Final = 65536
"""Bytes that the client's kernel takes in while nothing is read; with fewer, reading a megabyte takes seconds."""
BIG_MESSAGE: Final = "/big 1024"
"""A reply of 1 MiB from the bundled agent: more than the buffers between server and client hold."""


@check(
    "delivery.no-buffering",
    "Events arrive one by one as they are sent, not all at the end",
    rule="docs/protocol.md#routes",
    meaning="Something on the way buffers: users see nothing for a long time, and then everything at once.",
)
def no_buffering(target: Target) -> str | None:
    sample = target.sample()
    moments = [event.frame.at - sample.started_at for event in sample.logged]
    if moments[-1] < MIN_SECONDS or len(moments) < MIN_EVENTS:
        raise Skipped(f"{len(moments)} events in {moments[-1]:.1f} s are too few: see --slow-message")
    largest = max(sum(0 <= other - moment <= BURST_SECONDS for other in moments) for moment in moments)
    expect(largest * 2 <= len(moments), f"{largest} of {len(moments)} events arrived within {BURST_SECONDS * 1000:.0f} ms")
    expect(moments[0] * 2 <= moments[-1], f"the first event arrived after {moments[0]:.1f} of {moments[-1]:.1f} s")
    return f"at most {largest} of {len(moments)} events at once"


@check(
    "delivery.slow-reader",
    "A client that reads nothing for a while then gets all of it",
    rule="docs/protocol.md#events",
    meaning="A slow network, or a browser that is busy, loses the rest of the reply.",
)
def slow_reader(target: Target) -> str | None:
    user = target.user()
    with user.send(BIG_MESSAGE) as fast:
        fast.read_all(target.deadline())
    expect_one_end(fast)
    response = user.request("GET", f"/api/chat/stream/{fast.message_id}", receive_buffer=SMALL_BUFFER)
    with EventStream(response, 0.0) as slow:
        sleep(PAUSE_SECONDS)
        slow.read_all(target.deadline())
    expect_one_end(slow)
    expect_same_events(slow.logged, fast.logged, f"after {PAUSE_SECONDS:g} s without reading")
    return f"{len(slow.raw)} bytes"
