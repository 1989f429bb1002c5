"""Whether something between a browser and us holds streams back, judged by ten timed ticks: `flask diagnose <url>`.

What is measured is gaps: how far apart two ticks were sent, by the server's clock, and how far apart they came, by ours.
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
LISTEN_SECONDS: Final = 60.0
TOGETHER: Final = 0.25
"""Of the gap with which two ticks were sent: what comes closer than this came together."""
USUAL: Final = (
    "nginx does it unless the location says `proxy_buffering off;`, or lets our X-Accel-Buffering count.",
    "Compression does it: switch it off for text/event-stream (nginx: gzip_types; Cloudflare: a compression rule).",
    "Caches, virus scanners and companies' proxies do it: they read an answer to its end before they hand it on.",
)


class Tick(NamedTuple):
    """Seconds: since the server began, and at our own clock."""

    sent: float
    came: float


class ProbeResult(NamedTuple):
    ticks: list[Tick]
    headers: Mapping[str, str]
    """Of the answer; their names in any case."""
    encoding: str = ""
    """How a browser, which takes compressed answers, would get it."""


class CheckResult(NamedTuple):
    ok: bool
    message: str


def listen(url: str) -> ProbeResult:
    """Raises an UpstreamFailure."""
    session = http.new_session()
    address = url.rstrip("/") + PATH
    with closing(_opened(session, address, {"Accept-Encoding": "gzip, deflate, br"})) as as_a_browser:
        encoding = as_a_browser.headers.get("Content-Encoding", "")
    response = _opened(session, address, {})
    ticks = []
    with closing(waiting.new_waiter()) as waiter, closing(EventSource(response, LISTEN_SECONDS)) as source:
        for event in source.events(waiter):
            content = {} if event is None else events.parsed_object(event.data)
            if isinstance(sent := content.get("elapsed_ms"), int):
                ticks.append(Tick(sent / 1000, monotonic()))
    return ProbeResult(ticks, response.headers, encoding)


def _opened(session: Session, address: str, headers: Mapping[str, str]) -> Response:
    """Raises an UpstreamFailure. A server of ours refuses in so many words only who does not ask for an event stream."""
    deadline = monotonic() + LISTEN_SECONDS
    response = http.send(session, "GET", address, headers=headers, connect=CONNECT_SECONDS, deadline=deadline)
    if response.status_code != 200:
        response.close()
        raise UpstreamError(detail=f"it answered {response.status_code}")
    return response


def evaluate(heard: ProbeResult) -> Iterator[CheckResult]:
    """What there is to say; nothing is wrong if all of it is fine."""
    wrong = [*_by_arrival(heard.ticks), *_by_headers(heard)]
    if not wrong:
        yield CheckResult(True, f"All {len(heard.ticks)} ticks came one by one, as they were sent: nothing holds streams back.")
    for message in wrong:
        yield CheckResult(False, message)
    for message in USUAL if wrong else ():
        yield CheckResult(True, message)
    for message in _executors(heard.headers):
        yield CheckResult(True, message)


def _by_arrival(ticks: list[Tick]) -> Iterator[str]:
    if len(ticks) < 2:
        yield "Hardly a tick came: something on the way changes the stream, or ends it."
        return
    pairs = list(pairwise(ticks))
    bunched = sum(later.came - one.came < TOGETHER * (later.sent - one.sent) for one, later in pairs)
    # One or two can be this machine's own doing, or a packet that was lost.
    if bunched * 2 >= len(pairs):
        yield f"{bunched + 1} of {len(ticks)} ticks came together: something on the way holds the stream back."


def _by_headers(heard: ProbeResult) -> Iterator[str]:
    if heard.encoding not in {"", "identity"}:
        yield f"A browser would get the stream compressed ({heard.encoding}), and events late: with what fills up a block."
    if "Content-Length" in heard.headers:
        yield "The stream has a Content-Length: something on the way has read it to its end first."


def _executors(headers: Mapping[str, str]) -> Iterator[str]:
    if "X-Accel-Buffering" not in headers:
        yield "X-Accel-Buffering did not arrive: an nginx on the way has taken it, which is how it obeys, or somebody drops it."
    if "no-transform" not in headers.get("Cache-Control", ""):
        yield "Cache-Control: no-transform did not arrive: those on the way do not know that they must not compress."
    if server := headers.get("Server", ""):
        yield f"What answers calls itself {server[:40]!r}."
