"""The head of a stream's response."""

import re
import zlib
from typing import Final

from bff.api.cli.conformance.model import check
from bff.api.cli.conformance.outcomes import Failed, expect
from bff.api.cli.conformance.sse import EventStream
from bff.api.cli.conformance.target import ACTIVE, CHAT, Target

MESSAGE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
ODD_REQUEST_ID: Final = "not one/of ours"
SENDING: Final = "docs/protocol.md#sending-a-message"


@check(
    "stream.opens",
    "A message is accepted and its reply is streamed",
    rule=SENDING,
    meaning="Nobody can chat. Most other checks need a reply and are skipped.",
)
def opens(target: Target) -> str | None:
    problem = target.sample_problem()
    expect(not problem, problem)
    return f"a reply of {len(target.sample().logged)} events"


@check(
    "headers.content-type",
    "Streams are text/event-stream; charset=utf-8",
    rule=SENDING,
    meaning="EventSource refuses the stream (WHATWG HTML, 9.2.3), and other clients may decode the text wrongly.",
)
def content_type(target: Target) -> str | None:
    for method, stream in _both_streams(target):
        found = stream.response.header("content-type")
        kind, _, charset = found.lower().partition(";")
        expect(kind.strip() == "text/event-stream", f"the {method} has Content-Type: {found}")
        expect(charset.strip() == "charset=utf-8", f"the {method} names no charset: {found}")
    return None


@check(
    "headers.no-store",
    "No cache or proxy may store or transform a stream",
    rule=SENDING,
    meaning="A cache may show one user's reply to another, and a proxy may compress the stream and so delay its events.",
)
def no_store(target: Target) -> str | None:
    for method, stream in _both_streams(target):
        found = stream.response.header("cache-control")
        directives = {directive.strip().lower() for directive in found.split(",")}
        missing = {"no-store", "no-transform"} - directives
        expect(not missing, f"the {method} has Cache-Control: {found or '(none)'}, without {', '.join(sorted(missing))}")
    return None


@check(
    "headers.message-id",
    "X-Message-ID and Location name the reply",
    rule=SENDING,
    meaning="A client cannot resume, stop or follow the reply: a lost connection loses it.",
)
def message_id(target: Target) -> str | None:
    for method, stream in _both_streams(target):
        found, location = stream.message_id, stream.response.header("location")
        expect(MESSAGE_ID.fullmatch(found), f"the {method} has X-Message-ID: {found or '(none)'}")
        expect(location.endswith(f"{CHAT}/{found}"), f"the {method} has Location: {location or '(none)'}")
    return None


@check(
    "headers.on-disconnect",
    "X-On-Disconnect says whether a client may leave and come back",
    rule=SENDING,
    meaning="A hidden tab cannot know whether closing its stream would end the reply.",
)
def on_disconnect(target: Target) -> str | None:
    found = target.sample().response.header("x-on-disconnect")
    expect(found in {"continue", "cancel"}, f"X-On-Disconnect is {found or 'missing'}")
    return found


@check(
    "headers.request-id",
    "X-Request-ID is the request's own, or a new one for an invalid one",
    rule="docs/protocol.md#errors",
    meaning="A user's problem report cannot be found in the server's log; or anything can be written into that log.",
)
def request_id(target: Target) -> str | None:
    for sent, is_valid in (("conformance-1.a_b", True), (ODD_REQUEST_ID, False), ("x" * 129, False)):
        with target.user().request("GET", ACTIVE, headers={"X-Request-ID": sent}) as response:
            found = response.header("x-request-id")
        expect(REQUEST_ID.fullmatch(found), f"X-Request-ID is {found or 'missing'}")
        expect((found == sent) == is_valid, f"{sent[:40]!r} was sent and {found[:40]!r} came back")
    return None


@check(
    "headers.not-compressed",
    "Streams are not compressed, even if a client accepts it",
    rule=SENDING,
    meaning="A compressor holds events back until a block is full: text appears late and in bursts.",
)
def not_compressed(target: Target) -> str | None:
    with target.user().send("hello", {"Accept-Encoding": "gzip, deflate, br, zstd"}) as stream:
        encoding = stream.response.header("content-encoding")
        stream.read_some(target.deadline())
    expect(encoding in {"", "identity"}, f"Content-Encoding is {encoding}")
    expect(not _is_compressed(stream.raw), "the body is compressed, although no header says so")
    return None


def _is_compressed(data: bytes) -> bool:
    try:
        return bool(zlib.decompressobj(wbits=47).decompress(data)) and not data.startswith(b"data")
    except zlib.error:
        return False


def _both_streams(target: Target) -> list[tuple[str, EventStream]]:
    sample = target.sample()
    try:
        followed = target.sample_user.follow(sample.message_id)
    except Failed:
        return [("POST", sample)]  # Reported by resume.start.
    followed.close()
    return [("POST", sample), ("GET", followed)]
