"""Whether what holds a stream back is found, and nothing that does not."""

import json
import time

import pytest

from bff.api.cli import diagnose
from bff.api.cli.diagnose import ProbeResult, Tick, evaluate, listen
from bff.errors import UpstreamError, UpstreamUnavailable
from tests.live import Browser
from tests.wire_server import LAST_CHUNK, WireServer, chunk, reply, stream_head

OURS = {"X-Accel-Buffering": "no", "Cache-Control": "no-store, no-transform"}
SENT = [number * 0.2 for number in range(10)]
STEADY = [Tick(sent, 100 + sent) for sent in SENT]


def wrong(heard: ProbeResult) -> list[str]:
    return [message for ok, message in evaluate(heard) if not ok]


def test_a_stream_that_comes_as_it_was_sent_is_fine():
    (finding,) = evaluate(ProbeResult(STEADY, OURS))

    assert finding == (True, "All 10 ticks came one by one, as they were sent: nothing holds streams back.")


@pytest.mark.parametrize("size", [10, 5, 3])
def test_ticks_that_come_in_bunches_are_held_back_by_somebody(size):
    bunches = [Tick(sent, 100 + SENT[min(9, (number // size + 1) * size - 1)]) for number, sent in enumerate(SENT)]

    (message,) = wrong(ProbeResult(bunches, OURS))

    assert message.endswith("of 10 ticks came together: something on the way holds the stream back.")


def test_a_hiccup_or_two_are_no_reason_to_suspect_anybody():
    late = [tick._replace(came=101.0) if 0.5 < tick.sent < 0.9 else tick for tick in STEADY]

    assert wrong(ProbeResult(late, OURS)) == []


@pytest.mark.parametrize(
    ("heard", "words"),
    [
        (ProbeResult([], OURS), "Hardly a tick came"),
        (ProbeResult(STEADY, OURS, "gzip"), "A browser would get the stream compressed (gzip)"),
        (ProbeResult(STEADY, OURS | {"Content-Length": "900"}), "The stream has a Content-Length"),
    ],
)
def test_what_else_is_wrong_is_said_with_what_usually_does_it(heard, words):
    said = list(evaluate(heard))

    assert next(message for ok, message in said if not ok).startswith(words)
    assert any("nginx" in message for ok, message in said if ok)


def test_headers_that_somebody_took_are_said():
    said = [message for _, message in evaluate(ProbeResult(STEADY, {"Server": "cloudflare"}))]

    assert [message.split()[0] for message in said[1:]] == ["X-Accel-Buffering", "Cache-Control:", "What"]


def tick(number: int) -> bytes:
    return f"data: {json.dumps({'type': 'tick', 'number': number, 'elapsed_ms': number * 200})}\n\n".encode()


def test_a_stream_is_listened_to_as_it_comes():
    at_once = b"".join(tick(number) for number in range(10))

    with WireServer([stream_head(Content_Encoding="br")], [stream_head(), chunk(at_once), LAST_CHUNK]) as proxy:
        heard = listen(proxy.url + "/")

    assert (len(heard.ticks), heard.encoding) == (10, "br")
    assert [request.path for request in proxy.requests] == [diagnose.PATH] * 2
    assert "br" in proxy.requests[0].headers["accept-encoding"]
    assert len(wrong(heard)) == 2


def test_an_address_that_streams_nothing_is_told_from_one_that_buffers():
    with WireServer([reply(b"", "404 Not Found")]) as server, pytest.raises(UpstreamError) as refused:
        listen(server.url)
    with pytest.raises(UpstreamUnavailable):
        listen("http://127.0.0.1:1")

    assert refused.value.detail == "it answered 404"


@pytest.mark.live
def test_a_server_of_ours_that_refuses_is_not_taken_for_a_network_that_holds_streams_back(start, kind):
    server = start(kind, MAX_STREAMS="1")

    with Browser(server).say("/slow 60 one two three") as answer:
        next(answer.frames())
        with pytest.raises(UpstreamError) as refused:
            listen(server.url)

    assert refused.value.detail == "it answered 503"


@pytest.mark.live
def test_our_own_server_holds_nothing_back(start, kind):
    server = start(kind)

    began = time.monotonic()
    heard = listen(server.url)

    assert [tick.sent >= number * 0.2 - 0.01 for number, tick in enumerate(heard.ticks)] == [True] * 10
    assert time.monotonic() - began >= 1.7
    assert {name: heard.headers[name] for name in OURS} == OURS
    assert heard.encoding == ""
