"""`flask diagnose <url>`: detects proxies that buffer streams, from ten timed ticks of /api/diagnostics/stream.

It compares the gaps between ticks: as they were sent, by the server's clock, and as they arrived, by ours.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import pairwise
from time import monotonic
from typing import Final, NamedTuple

from bff.errors import UpstreamError
from bff.http import waiting
from bff.upstream import events, http
from bff.upstream.http import EventSource, Response, Session

PATH: Final = "/api/diagnostics/stream"
CONNECT_SECONDS: Final = 10.0
PROBE_SECONDS: Final = 60.0
BUNCHED_RATIO: Final = 0.25
"""Two ticks that arrive within this fraction of the gap with which they were sent arrived together."""
USUAL_CAUSES: Final = (
    "nginx buffers unless the location has `proxy_buffering off;` or respects our X-Accel-Buffering header.",
    "Compression buffers: switch it off for text/event-stream (nginx: gzip_types; Cloudflare: a compression rule).",
    "Caches, virus scanners and corporate proxies buffer: they read a response to its end before they pass it on.",
)


class Tick(NamedTuple):
    """Seconds: `sent` since the stream began, by the server's clock; `received` by our monotonic clock."""

    sent: float
    received: float


class ProbeResult(NamedTuple):
    ticks: list[Tick]
    headers: Mapping[str, str]
    """The response's headers; names are case-insensitive."""
    encoding: str = ""
    """The Content-Encoding that a browser would get, as browsers accept compressed responses."""


class CheckResult(NamedTuple):
    ok: bool
    message: str


def probe(url: str, session: Session | None = None) -> ProbeResult:
    """Reads the server's ticks. Raises an UpstreamFailure."""
    session = session or http.new_session()
    address = url.rstrip("/") + PATH
    with closing(_open(session, address, {"Accept-Encoding": "gzip, deflate, br"})) as as_a_browser:
        encoding = as_a_browser.headers.get("Content-Encoding", "")
    response = _open(session, address, {})
    ticks = []
    with closing(waiting.new_waiter()) as waiter, closing(EventSource(response, PROBE_SECONDS)) as source:
        source.deadline = monotonic() + PROBE_SECONDS
        for event in source.events(waiter):
            content = {} if event is None else events.parse_object(event.data)
            if isinstance(sent := content.get("elapsed_ms"), int):
                ticks.append(Tick(sent / 1000, monotonic()))
    return ProbeResult(ticks, response.headers, encoding)


def _open(session: Session, address: str, headers: Mapping[str, str]) -> Response:
    """Raises an UpstreamFailure.

    It must not send `Accept: text/event-stream`: our servers refuse such a request with a 200 that asks to reconnect, which
    would look like a stream without ticks.
    """
    deadline = monotonic() + PROBE_SECONDS
    response = http.send(session, "GET", address, headers=headers, connect=CONNECT_SECONDS, deadline=deadline)
    if response.status_code != 200:
        response.close()
        raise UpstreamError(detail=f"it answered {response.status_code}")
    return response


def evaluate(probed: ProbeResult) -> Iterator[CheckResult]:
    problems = [*_timing_problems(probed.ticks), *_header_problems(probed)]
    if not problems:
        yield CheckResult(
            True, f"All {len(probed.ticks)} ticks arrived one by one, as they were sent: nothing buffers streams."
        )
    for message in problems:
        yield CheckResult(False, message)
    for message in USUAL_CAUSES if problems else ():
        yield CheckResult(True, message)
    for message in _intermediaries(probed.headers):
        yield CheckResult(True, message)


def _timing_problems(ticks: list[Tick]) -> Iterator[str]:
    if len(ticks) < 2:
        yield "Hardly a tick arrived: a proxy changes the stream, or ends it."
        return
    pairs = list(pairwise(ticks))
    bunched = sum(later.received - one.received < BUNCHED_RATIO * (later.sent - one.sent) for one, later in pairs)
    # A busy client or a lost packet can bunch one or two.
    if bunched * 2 >= len(pairs):
        yield f"{bunched + 1} of {len(ticks)} ticks arrived together: a proxy buffers the stream."


def _header_problems(probed: ProbeResult) -> Iterator[str]:
    if probed.encoding not in {"", "identity"}:
        yield f"A browser would get the stream compressed ({probed.encoding}), and events late: when a block is full."
    if "Content-Length" in probed.headers:
        yield "The stream has a Content-Length: a proxy has read it to its end first."


def _intermediaries(headers: Mapping[str, str]) -> Iterator[str]:
    """What the headers tell about the proxies in between."""
    if "X-Accel-Buffering" not in headers:
        yield "X-Accel-Buffering did not arrive: an nginx consumed it, as it does when it respects it, or a proxy drops it."
    if "no-transform" not in headers.get("Cache-Control", ""):
        yield "Cache-Control: no-transform did not arrive: proxies do not know that they must not compress."
    if server := headers.get("Server", ""):
        yield f"The responding server calls itself {server[:40]!r}."
