"""A web process that dies, or is replaced, under running answers: the broker keeps them, and no reader notices."""

import random
import signal
from bisect import bisect_right

import pytest

from tests.faults.load import Crowd, Stream, all_over
from tests.live import BROKER_KEY, Server, eventually

WORDS = " ".join(f"word-{number}" for number in range(40))
ROOM = {"MAX_RUNNING": "1000", "QUEUE_DEPTH_PER_USER": "5"}


@pytest.fixture
def web(start):
    """`web()`: another web process in front of the one broker."""
    broker = start("broker", BROKER_API_KEY=BROKER_KEY, **ROOM)

    def begin(**settings) -> Server:
        return start("gunicorn", BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, **settings)

    return begin


def inexact(streams: list[Stream]) -> list[tuple[str, str, str]]:
    return [(stream.user, stream.end, stream.text) for stream in streams if not stream.is_exact()]


@pytest.mark.live
@pytest.mark.timeout(90)
@pytest.mark.parametrize("seed", [1, 2])
def test_answers_survive_a_process_that_is_killed_again_and_again(web, seed):
    chance = random.Random(seed)
    kills = [chance.randrange(5, 100), *sorted(chance.sample(range(100, 3500), 2))]
    server = web()

    with Crowd(server.port, seed) as crowd:
        streams = [crowd.say(f"/slow 5 {WORDS}") for _ in range(100)]
        for events in kills:
            assert crowd.wait_for(lambda events=events: sum(len(stream.events) for stream in streams) >= events, 20)
            server.crash()
            server = web(port=server.port)
        assert crowd.wait_for(all_over(streams), 30)

        assert not inexact(streams)
        assert sum(connection.how == "cut" for stream in streams for connection in stream.connections) > 50
        afterwards = [crowd.follow(stream) for stream in streams]
        assert crowd.wait_for(all_over(afterwards), 20)

    for stream, again in zip(streams, afterwards, strict=True):
        assert stream.said == again.said, "resumed or read in one go: the same events"


@pytest.mark.alone
@pytest.mark.live
@pytest.mark.timeout(90)
def test_a_rolling_restart_under_three_hundred_streams_loses_none_of_them(web):
    old, new = web(DRAIN_SECONDS="8"), web()

    with Crowd(old.port) as crowd:
        streams = [crowd.say(f"/slow 10 {WORDS}") for _ in range(300)]
        assert crowd.wait_for(lambda: all(stream.events for stream in streams), 20)
        crowd.port = new.port
        old.kill(signal.SIGTERM)
        assert crowd.wait_for(all_over(streams), 25)

    assert not inexact(streams)
    assert old.process.wait(10) == 0
    ended = [stream.connections[0] for stream in streams if len(stream.connections) > 1]
    assert len(ended) > 250, "nearly all were sent on to the new process"
    assert {connection.how for connection in ended} == {"clean"}
    assert_spread([connection.ended for connection in ended])
    assert_spread([connection.began for stream in streams for connection in stream.connections[1:]])
    assert eventually(lambda: len(old.ended) == 300), "each left its line"


def assert_spread(moments: list[float]) -> None:
    """Never more than half of them within a tenth of the time."""
    moments = sorted(moments)
    tenth = (moments[-1] - moments[0]) / 10
    most = max(bisect_right(moments, moment + tenth) - number for number, moment in enumerate(moments))
    assert most <= len(moments) / 2, f"{most} of {len(moments)} within {tenth:.2f} s"
