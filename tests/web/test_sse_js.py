"""The client library in Node: alone, against a live server, over a bad line, and through a restart."""

import re
import signal

import pytest

from tests.live import BROKER_KEY, Browser, eventually
from tests.original_broker import OriginalBroker
from tests.web.fault_proxy import FaultProxy, bad_line
from tests.web.node import LIBRARY, NodeTest, node

__all__ = ["node"]

BAD_LINE = {"SILENCE_SECONDS": "3"}
BEATS = {"HEARTBEAT_SECONDS": "0.4", "MESSAGES_PER_MINUTE": "1000", "ECHO_WORD_SECONDS": "0.005"}

pytestmark = pytest.mark.live


@pytest.mark.timeout(90)
@pytest.mark.parametrize("name", ["parser", "asking", "going_on", "leaving", "page", "replies"])
def test_the_library_alone(node, name):
    NodeTest(node, f"{name}.test.mjs").end(80)


def test_the_library_is_small_and_imports_nothing():
    source = LIBRARY.read_text()
    code = re.sub(r"^\s*(//|/?\*).*\n|^\n", "", source, flags=re.MULTILINE)

    assert len(source) < 17_000
    assert (len(code) < 12_000, code.count("\n") < 275) == (True, True)
    assert not re.findall(r"^\s*import\b|\bimport\(|\brequire\(", source, re.MULTILINE)


@pytest.mark.timeout(90)
def test_the_library_and_a_server_of_ours(node, start, kind):
    NodeTest(node, "live.test.mjs", CHAT_URL=start(kind).url).end(60)


@pytest.mark.timeout(150)
def test_over_a_bad_line_every_answer_is_exact(node, start):
    server = start(**BEATS)

    with FaultProxy(server.port, bad_line(seed=1, most=6000)) as line:
        NodeTest(node, "live_cuts.test.mjs", CHAT_URL=line.url, CUTS="100", AT_ONCE="40", **BAD_LINE).end(120)

    assert sum(line.seen.values()) >= 100, line.seen
    assert set(line.seen) == {"late", "refused", "silent", "cut", "ended"}


@pytest.mark.timeout(150)
def test_over_a_bad_line_every_answer_of_a_broker_without_ids_is_exact(node, start):
    with OriginalBroker() as broker:
        server = start(BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, **BEATS)

        with FaultProxy(server.port, bad_line(seed=2, most=9000)) as line:
            NodeTest(node, "live_cuts.test.mjs", CHAT_URL=line.url, CUTS="10", AT_ONCE="8", **BAD_LINE).end(120)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", ["told to stop", "crashed"])
def test_through_a_restart_the_text_goes_on_where_it_stopped(node, start, way):
    broker = start("broker", BROKER_API_KEY=BROKER_KEY)
    settings = {"BROKER_BASE_URL": broker.url, "BROKER_API_KEY": BROKER_KEY, "DRAIN_SECONDS": "2"}
    old = start(**settings)

    test = NodeTest(node, "live_restart.test.mjs", CHAT_URL=old.url)
    assert eventually(lambda: [place["state"] for place in Browser(old, "restart-4").active()] == ["running"], 20)
    old.crash() if way == "crashed" else old.stop(signal.SIGTERM)
    start(port=old.port, **settings)

    test.end(60)
