"""A Redis that hangs: nothing is refused, nothing is cut, nobody answers. No answer is over because of it.

All times are of a real outage, scaled by FREEZE_SCALE; `make soak-freezes` takes them as they are.
"""

import os
from collections import Counter
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import pytest

from tests.adopted import adoptable_broker
from tests.adopted import settings_of as adopted_settings
from tests.faults.judge import OWN_CONNECTION
from tests.faults.load import Crowd, Stream, all_over
from tests.live import Server, in_parallel
from tests.original_broker import OriginalBroker
from tests.redis_server import RedisServer

SCALE = float(os.environ.get("FREEZE_SCALE", "0.1"))
ROWS = (("scaled", 3.0), ("scaled", 5.0), ("scaled", 15.0), ("scaled flask", 5.0), ("scaled adopted", 5.0))
"""How the app is served, and its heartbeats: each beside the others, around a Redis of its own."""
FREEZES = (10.0, 60.0) if SCALE < 1 else (10.0, 20.0, 30.0, 45.0, 60.0, 90.0)
ANSWERS = 8
ANSWER_SECONDS = 20.0
WORDS = " ".join(f"word-{number}" for number in range(40))
DEADLINE = 30.0 + 2 * ANSWER_SECONDS * SCALE
"""For all to end once Redis is back."""


class Outage(NamedTuple):
    """What the readers of one freeze were told, by the code of each end."""

    returning: Counter[str]
    others: Counter[str]
    inexact: list[str]

    def __str__(self) -> str:
        return f"those who come back: {dict(self.returning)}, others: {dict(self.others)}"


def scaled(seconds: float) -> str:
    return f"{seconds * SCALE:.3f}"


def begin(kind: str, folder: Path, redis: RedisServer, heartbeat: float, broker: OriginalBroker) -> Server:
    """`broker`: numbers nothing; used where the app adopts its replies."""
    settings = {
        "TIME_SCALE": str(SCALE),
        "REDIS_URL": redis.url,
        "HEARTBEAT_SECONDS": scaled(heartbeat),
        "UPSTREAM_READ_SECONDS": scaled(45),
        "UPSTREAM_OPEN_SECONDS": scaled(20),
        "LEASE_SECONDS": scaled(120),  # Longer than any freeze: a claim that runs out is an end in the log, true for all.
        "MAX_STREAMS_PER_USER": "1000",
        "MESSAGES_PER_MINUTE": "100000",
    }
    if kind == "scaled adopted":
        kind, settings = "scaled", settings | adopted_settings(broker)
    return Server(kind, folder / "web.log", **settings).wait_until_ready()


def freeze_once(crowd: Crowd, redis: RedisServer, seconds: float) -> Outage:
    """Tabs come, go and come back before and while Redis is frozen, and some say something new."""
    said = [crowd.say(f"/slow {scaled(ANSWER_SECONDS)} {WORDS}") for _ in range(ANSWERS)]
    assert crowd.wait_for(lambda: all(stream.message_id for stream in said), DEADLINE)
    tabs = [crowd.follow(stream) for stream in said]
    others = [crowd.say_again(stream, comes_back=False) for stream in said]
    assert crowd.wait_for(lambda: all(stream.text for stream in said + tabs + others), DEADLINE)
    redis.freeze()
    frozen = monotonic()
    for tab in tabs[::2]:
        crowd.drop(tab)
    late = [crowd.follow(stream, stream.last_id) for stream in said[::4]]
    new = [crowd.say("hello")]
    crowd.wait_for(lambda: monotonic() > frozen + seconds * SCALE, seconds * SCALE)
    redis.thaw()
    returning = said + tabs + late + new
    assert crowd.wait_for(all_over(returning + others), DEADLINE), states(returning + others)
    return Outage(ends_of(returning), ends_of(others), [states([one]) for one in said + tabs + new if not one.is_exact()])


def ends_of(streams: list[Stream]) -> Counter[str]:
    return Counter(stream.end for stream in streams)


def states(streams: list[Stream]) -> str:
    return ", ".join(
        f"{stream.message_id} {stream.end or 'no end'} {[c.wire.status for c in stream.connections][-3:]}"
        for stream in streams
        if stream.end != "complete"
    )


def under_freezes(folder: Path, kind: str, heartbeat: float) -> list[tuple[str, Outage]]:
    """Each outage, and what it was."""
    folder.mkdir()
    with RedisServer(folder) as redis, adoptable_broker() as broker:
        server = begin(kind, folder, redis, heartbeat, broker)
        try:
            with Crowd(server.port) as crowd:
                return [
                    (f"{kind}, heartbeat {heartbeat:.0f} s, frozen for {seconds:.0f} s", freeze_once(crowd, redis, seconds))
                    for seconds in FREEZES
                ]
        finally:
            server.stop()


@pytest.mark.alone
@pytest.mark.live
@pytest.mark.timeout(60 if SCALE < 1 else 900)
def test_nobody_who_comes_back_is_told_an_end_while_redis_is_frozen(tmp_path):
    rows = in_parallel(len(ROWS), lambda number: under_freezes(tmp_path / str(number), *ROWS[number]), 900)
    outages = [outage for row in rows for outage in row]

    for what, outage in outages:
        print(f"{what}: {outage}")
    for what, outage in outages:
        assert set(outage.returning) == {"complete"}, (what, outage)
        assert not outage.inexact, (what, outage)
        assert set(outage.others) <= {"complete", *OWN_CONNECTION}, (what, outage)
