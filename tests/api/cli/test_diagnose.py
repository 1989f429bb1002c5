"""Detection of proxies that buffer streams, without false alarms."""

import json
import time

import pytest

from bff.api.cli import diagnose
from bff.api.cli.diagnose import ProbeResult, Tick, evaluate, probe
from bff.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from tests.live import Browser
from tests.wire_server import LAST_CHUNK, WireServer, chunk, reply, stream_head

OURS = {"X-Accel-Buffering": "no", "Cache-Control": "no-store, no-transform"}
SENT = [number * 0.2 for number in range(10)]
STEADY = [Tick(sent, 100 + sent) for sent in SENT]


def problems(probed: ProbeResult) -> list[str]:
    return [message for ok, message in evaluate(probed) if not ok]


def test_steady_ticks_are_no_problem():
    (result,) = evaluate(ProbeResult(STEADY, OURS))

    assert result == (True, "All 10 ticks arrived one by one, as they were sent: nothing buffers streams.")


@pytest.mark.parametrize("size", [10, 5, 3])
def test_bunched_ticks_are_reported_as_buffering(size):
    bunches = [Tick(sent, 100 + SENT[min(9, (number // size + 1) * size - 1)]) for number, sent in enumerate(SENT)]

    (message,) = problems(ProbeResult(bunches, OURS))

    assert message.endswith("of 10 ticks arrived together: a proxy buffers the stream.")


def test_two_late_ticks_are_no_problem():
    late = [tick._replace(received=101.0) if 0.5 < tick.sent < 0.9 else tick for tick in STEADY]

    assert problems(ProbeResult(late, OURS)) == []


@pytest.mark.parametrize(
    ("probed", "message"),
    [
        (ProbeResult([], OURS), "Hardly a tick arrived"),
        (ProbeResult(STEADY, OURS, "gzip"), "A browser would get the stream compressed (gzip)"),
        (ProbeResult(STEADY, OURS | {"Content-Length": "900"}), "The stream has a Content-Length"),
    ],
)
def test_other_problems_are_reported_with_usual_causes(probed, message):
    results = list(evaluate(probed))

    assert next(text for ok, text in results if not ok).startswith(message)
    assert any("nginx" in text for ok, text in results if ok)


def test_missing_headers_are_reported():
    messages = [message for _, message in evaluate(ProbeResult(STEADY, {"Server": "cloudflare"}))]

    assert [message.split()[0] for message in messages[1:]] == ["X-Accel-Buffering", "Cache-Control:", "The"]


def tick(number: int) -> bytes:
    return f"data: {json.dumps({'type': 'tick', 'number': number, 'elapsed_ms': number * 200})}\n\n".encode()


def test_probe_records_ticks_and_encoding():
    ticks = b"".join(tick(number) for number in range(10))

    with WireServer([stream_head(Content_Encoding="br")], [stream_head(), chunk(ticks), LAST_CHUNK]) as proxy:
        probed = probe(proxy.url + "/")

    assert (len(probed.ticks), probed.encoding) == (10, "br")
    assert [request.path for request in proxy.requests] == [diagnose.PATH] * 2
    assert "br" in proxy.requests[0].headers["accept-encoding"]
    assert len(problems(probed)) == 2


def test_probe_ends_for_a_stream_that_does_not_end(monkeypatch):
    monkeypatch.setattr(diagnose, "PROBE_SECONDS", 0.5)
    endless = [stream_head(), *[step for number in range(50) for step in (chunk(tick(number)), 0.1)]]

    with WireServer([stream_head()], endless) as server, pytest.raises(UpstreamTimeout) as ended:
        probe(server.url)

    assert ended.value.detail == "the response did not end in time"


def test_probe_raises_for_a_url_without_a_stream():
    with WireServer([reply(b"", "404 Not Found")]) as server, pytest.raises(UpstreamError) as refused:
        probe(server.url)
    with pytest.raises(UpstreamUnavailable):
        probe("http://127.0.0.1:1")

    assert refused.value.detail == "it answered 404"


@pytest.mark.live
def test_probe_raises_if_our_server_is_full(start, kind):
    server = start(kind, MAX_STREAMS="1")

    with Browser(server).say("/slow 60 one two three") as stream:
        next(stream.frames())
        with pytest.raises(UpstreamError) as refused:
            probe(server.url)

    assert refused.value.detail == "it answered 503"


@pytest.mark.live
def test_our_own_server_does_not_buffer(start, kind):
    server = start(kind)

    started = time.monotonic()
    probed = probe(server.url)

    assert [tick.sent >= number * 0.2 - 0.01 for number, tick in enumerate(probed.ticks)] == [True] * 10
    assert time.monotonic() - started >= 1.7
    assert {name: probed.headers[name] for name in OURS} == OURS
    assert probed.encoding == ""
