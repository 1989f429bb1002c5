"""sse.js in Node: alone, against a live server, over an unreliable connection, and through a restart."""

import re
import signal

import pytest

from tests.live import BROKER_KEY, Browser, eventually
from tests.original_broker import OriginalBroker
from tests.web.fault_proxy import FaultProxy, random_faults
from tests.web.node import LIBRARY, NodeTest, node

__all__ = ["node"]

SHORT_IDLE_TIMEOUT = {"IDLE_TIMEOUT_SECONDS": "3"}
FAST_HEARTBEATS = {"HEARTBEAT_SECONDS": "0.4", "MESSAGES_PER_MINUTE": "1000", "ECHO_WORD_SECONDS": "0.005"}

pytestmark = pytest.mark.live


@pytest.mark.timeout(90)
@pytest.mark.parametrize("name", ["parser", "requests", "resuming", "cancelling", "page", "conversations", "connections"])
def test_library_with_scripted_responses(node, name):
    NodeTest(node, f"{name}.test.mjs").wait(80)


def test_library_is_small_and_has_no_imports():
    source = LIBRARY.read_text()
    code = re.sub(r"^\s*(//|/?\*).*\n|^\n", "", source, flags=re.MULTILINE)

    assert len(source) < 24_000
    assert (len(code) < 17_500, code.count("\n") < 430) == (True, True)
    assert not re.findall(r"^\s*import\b|\bimport\(|\brequire\(", source, re.MULTILINE)


@pytest.mark.timeout(90)
def test_library_against_a_live_server(node, start, kind):
    NodeTest(node, "live.test.mjs", CHAT_URL=start(kind).url).wait(60)


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_replies_are_exact_over_an_unreliable_connection(node, start):
    server = start(**FAST_HEARTBEATS)

    with FaultProxy(server.port, random_faults(seed=1, max_bytes=6000)) as proxy:
        NodeTest(node, "live_cuts.test.mjs", CHAT_URL=proxy.url, CUTS="100", CONCURRENCY="40", **SHORT_IDLE_TIMEOUT).wait(120)

    assert sum(proxy.seen.values()) >= 80, proxy.seen  # The client also counts silences that a busy machine made.
    assert set(proxy.seen) == {"late", "refused", "silent", "cut", "ended"}


@pytest.mark.timeout(150)
def test_replies_of_a_broker_without_ids_are_exact_over_an_unreliable_connection(node, start):
    with OriginalBroker() as broker:
        server = start(BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, **FAST_HEARTBEATS)

        with FaultProxy(server.port, random_faults(seed=2, max_bytes=9000)) as proxy:
            NodeTest(node, "live_cuts.test.mjs", CHAT_URL=proxy.url, CUTS="10", CONCURRENCY="8", **SHORT_IDLE_TIMEOUT).wait(120)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("restart", ["stopped", "crashed"])
def test_text_continues_through_a_restart(node, start, restart):
    broker = start("broker", BROKER_API_KEY=BROKER_KEY)
    settings = {"BROKER_BASE_URL": broker.url, "BROKER_API_KEY": BROKER_KEY, "DRAIN_SECONDS": "2"}
    old = start(**settings)

    test = NodeTest(node, "live_restart.test.mjs", CHAT_URL=old.url)
    assert eventually(lambda: [position["state"] for position in Browser(old, "restart-4").active()] == ["running"], 20)
    old.crash() if restart == "crashed" else old.stop(signal.SIGTERM)
    start(port=old.port, **settings)

    test.wait(60)
