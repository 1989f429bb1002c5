"""The bytes and frames of a stream, and the JSON in them."""

import re
from collections.abc import Iterator
from typing import Any, Final

from bff.api.cli.conformance.model import check
from bff.api.cli.conformance.outcomes import Skipped, expect
from bff.api.cli.conformance.sse import HEARTBEAT, TERMINAL, Event, byte_problems, framing_problems
from bff.api.cli.conformance.target import Target

EVENTS: Final = "docs/protocol.md#events"
KNOWN: Final = TERMINAL | {"status", "progress", "tool_use", "tool_result", "reasoning", "restart", HEARTBEAT}
TEXT_FIELDS: Final = {"status": "message", "progress": "text", "reasoning": "text", "error": "error"}
"""The field that an event of this type has, a string."""
ID: Final = re.compile(r"[^\s\x00-\x1f\x7f-\x9f]+")
MAX_ID_BYTES: Final = 256
TRICKY_TEXT: Final = (
    "Ἐν ἀρχῇ בְּרֵאשִׁית 日本語 👨\u200d👩\u200d👧🙏🏽 line\u2028separator\u2029 next\u0085line tab\there "
    'back\\slash "quotes" id: 7 data: x'
)
"""What careless readers split or decode wrongly."""


@check(
    "framing.bytes",
    "The stream is UTF-8 with LF line ends and no byte order mark",
    rule=EVENTS,
    meaning="Hand-written readers, which split at LF, lose events or show broken characters.",
)
def stream_bytes(target: Target) -> str | None:
    problems = [*byte_problems(target.sample().raw)]
    expect(not problems, "; ".join(problems))
    return None


@check(
    "framing.frames",
    "A frame is data on one line, then id, then an empty line, or a comment",
    rule=EVENTS,
    meaning="Readers that look for lines beginning with `data: ` miss events, and browsers deliver them under other names.",
)
def frames(target: Target) -> str | None:
    sample = target.sample()
    problems = [problem for frame in sample.frames for problem in framing_problems(frame)]
    expect(not problems, "; ".join(problems[:3]))
    expect(not sample.rest, f"the stream ends in the middle of a frame: {sample.rest[:80]!r}")
    return None


@check(
    "framing.retry",
    "retry comes only when a reply is followed, in the first event's frame",
    rule=EVENTS,
    meaning="Readers that take each block for JSON fail, or reconnects of many browsers come at the same moment.",
)
def retry(target: Target) -> str | None:
    sample = target.sample()
    expect(not any(frame.values("retry") for frame in sample.frames), "the POST's stream has a retry field")
    with target.sample_user.follow(sample.message_id) as stream:
        stream.read_all(target.deadline())
    late = [event.frame for event in stream.events[1:] if event.frame.values("retry")]
    expect(not late, f"retry comes late, in {late[0].raw[:80]!r}" if late else "")
    return None


@check(
    "framing.json",
    "Each event is a JSON object with a documented type and its fields",
    rule=EVENTS,
    meaning="A client stops at an event that it cannot parse, or shows `undefined`.",
)
def event_json(target: Target) -> str | None:
    problems = [problem for event in target.sample().events for problem in _content_problems(event)]
    expect(not problems, "; ".join(problems[:3]))
    return None


def _content_problems(event: Event) -> Iterator[str]:
    shown = repr(event.frame.raw[:80])
    if not event.type:
        yield f"no JSON object with a type: {shown}"
    elif event.type not in KNOWN:
        yield f"an unknown type: {shown}"
    elif (field := TEXT_FIELDS.get(event.type)) and not isinstance(event.content.get(field), str):
        yield f"no {field}: {shown}"


@check(
    "framing.ids",
    "Each event but a heartbeat has an id of its own that can be sent back",
    rule=EVENTS,
    meaning="After a lost connection the reply cannot be continued: events are lost, or shown twice.",
)
def ids(target: Target) -> str | None:
    sample = target.sample()
    missing = [event for event in sample.logged if not event.id]
    expect(not missing, f"{len(missing)} of {len(sample.logged)} events have no id")
    numbers = [event.id for event in sample.logged]
    repeated = [number for number in numbers if numbers.count(number) > 1]
    expect(not repeated, f"two events have the id {repeated[0]}" if repeated else "")
    odd = [number for number in numbers if not ID.fullmatch(number) or len(number.encode()) > MAX_ID_BYTES]
    expect(not odd, f"an id cannot be sent in a header: {odd[0][:80]!r}" if odd else "")
    return None


@check(
    "framing.no-ids",
    "?ids=0 omits the ids",
    rule=EVENTS,
    meaning="Readers that take a whole block for JSON cannot use the server.",
)
def no_ids(target: Target) -> str | None:
    sample = target.sample()
    with target.sample_user.follow(sample.message_id, query="?ids=0") as stream:
        stream.read_all(target.deadline())
    expect(stream.logged, "the stream has no events")
    expect(not any(event.id for event in stream.events), "the stream has ids all the same")
    return None


@check(
    "framing.unicode",
    "Text arrives as it was written: any language, emoji, U+2028, quotation marks",
    rule=EVENTS,
    meaning="Users see broken characters, or the reply ends in the middle.",
)
def unicode_text(target: Target) -> str | None:
    if not target.repeats_messages():
        raise Skipped("the agent does not repeat messages, so its text is not known")
    with target.user().send(TRICKY_TEXT) as stream:
        stream.read_all(target.deadline())
    expect(stream.text == TRICKY_TEXT, f"{TRICKY_TEXT!r} was sent and {stream.text!r} came back")
    end: Any = stream.last.content.get("response", {}) if stream.last else {}
    expect(end.get("responses") == [TRICKY_TEXT], "the last event's text differs from the pieces")
    return None
