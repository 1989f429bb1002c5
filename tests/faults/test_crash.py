"""A web process that crashes or is replaced: the broker keeps the replies, and readers resume."""

import random
import signal
from bisect import bisect_right

import pytest

from tests.faults.load import Clients, Stream, all_done
from tests.live import BROKER_KEY, Server, eventually

WORDS = " ".join(f"word-{number}" for number in range(40))
HIGH_LIMITS = {"MAX_RUNNING": "1000", "QUEUE_DEPTH_PER_USER": "5"}


@pytest.fixture
def web(start):
    """`web()` starts a web process of the one broker."""
    broker = start("broker", BROKER_API_KEY=BROKER_KEY, **HIGH_LIMITS)

    def start_web(**settings) -> Server:
        return start("gunicorn", BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, **settings)

    return start_web


def inexact(streams: list[Stream]) -> list[tuple[str, str, str]]:
    return [(stream.user, stream.end, stream.text) for stream in streams if not stream.is_exact()]


@pytest.mark.slow
@pytest.mark.live
@pytest.mark.timeout(90)
@pytest.mark.parametrize("seed", [1, 2])
def test_replies_survive_repeated_crashes_of_a_web_process(web, seed):
    rng = random.Random(seed)
    kills = [rng.randrange(5, 100), *sorted(rng.sample(range(100, 3500), 2))]
    server = web()

    with Clients(server.port, seed) as clients:
        streams = [clients.send(f"/slow 5 {WORDS}") for _ in range(100)]
        for events in kills:
            assert clients.wait_for(lambda events=events: sum(len(stream.events) for stream in streams) >= events, 20)
            server.crash()
            server = web(port=server.port)
        assert clients.wait_for(all_done(streams), 30)

        assert not inexact(streams)
        assert sum(connection.outcome == "cut" for stream in streams for connection in stream.connections) > 50
        followers = [clients.follow(stream) for stream in streams]
        assert clients.wait_for(all_done(followers), 20)

    for stream, follower in zip(streams, followers, strict=True):
        assert stream.numbered_events == follower.numbered_events, "resumed or read at once: the same events"


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.live
@pytest.mark.timeout(90)
def test_a_rolling_restart_loses_none_of_300_streams(web):
    old, new = web(DRAIN_SECONDS="8"), web()

    with Clients(old.port) as clients:
        streams = [clients.send(f"/slow 10 {WORDS}") for _ in range(300)]
        assert clients.wait_for(lambda: all(stream.events for stream in streams), 20)
        clients.port = new.port
        old.kill(signal.SIGTERM)
        assert clients.wait_for(all_done(streams), 25)

    assert not inexact(streams)
    assert old.process.wait(10) == 0
    drained = [stream.connections[0] for stream in streams if len(stream.connections) > 1]
    assert len(drained) > 250, "nearly all reconnected to the new process"
    assert {connection.outcome for connection in drained} == {"clean"}
    assert_spread([connection.ended for connection in drained])
    assert_spread([connection.started for stream in streams for connection in stream.connections[1:]])
    assert eventually(lambda: len(old.ended) == 300), "each logged its end"


def assert_spread(moments: list[float]) -> None:
    """Checks that at most half of them lie within a tenth of the time."""
    moments = sorted(moments)
    tenth = (moments[-1] - moments[0]) / 10
    densest = max(bisect_right(moments, moment + tenth) - number for number, moment in enumerate(moments))
    assert densest <= len(moments) / 2, f"{densest} of {len(moments)} within {tenth:.2f} s"
