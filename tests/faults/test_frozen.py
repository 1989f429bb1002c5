"""A Redis that hangs: connections stay open and get no response. No reply ends because of it.

Times are those of a real outage, multiplied by FREEZE_SCALE; `make soak-freezes` uses them unscaled.
"""

import os
from collections import Counter
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import pytest

from tests.adopted import adoptable_broker
from tests.adopted import settings_of as adopted_settings
from tests.faults.consistency import CONNECTION_ERRORS
from tests.faults.load import Clients, Stream, all_done
from tests.live import Server, in_parallel
from tests.original_broker import OriginalBroker
from tests.redis_server import RedisServer

SCALE = float(os.environ.get("FREEZE_SCALE", "0.1"))
ROWS = (("scaled", 3.0), ("scaled", 5.0), ("scaled", 15.0), ("scaled flask", 5.0), ("scaled adopted", 5.0))
"""How the app is served, and its heartbeat (seconds). All run at the same time, each with its own Redis."""
FREEZES = (10.0, 60.0) if SCALE < 1 else (10.0, 20.0, 30.0, 45.0, 60.0, 90.0)
REPLIES = 8
REPLY_SECONDS = 20.0
WORDS = " ".join(f"word-{number}" for number in range(40))
DEADLINE = 30.0 + 2 * REPLY_SECONDS * SCALE
"""Seconds for all replies to end once Redis is back."""


class Outage(NamedTuple):
    """The ends that readers of one freeze received."""

    resumable: Counter[str]
    others: Counter[str]
    inexact: list[str]

    def __str__(self) -> str:
        return f"resumable: {dict(self.resumable)}, others: {dict(self.others)}"


def scaled(seconds: float) -> str:
    return f"{seconds * SCALE:.3f}"


def start_server(kind: str, folder: Path, redis: RedisServer, heartbeat: float, broker: OriginalBroker) -> Server:
    """`broker`: one whose events have no ids, used where the app adopts its replies."""
    settings = {
        "TIME_SCALE": str(SCALE),
        "REDIS_URL": redis.url,
        "HEARTBEAT_SECONDS": scaled(heartbeat),
        "UPSTREAM_READ_SECONDS": scaled(45),
        "UPSTREAM_OPEN_SECONDS": scaled(20),
        "LEASE_SECONDS": scaled(120),  # Longer than any freeze: an expired lease would end the reply for every reader.
        "MAX_STREAMS_PER_USER": "1000",
        "MESSAGES_PER_MINUTE": "100000",
    }
    if kind == "scaled adopted":
        kind, settings = "scaled", settings | adopted_settings(broker)
    return Server(kind, folder / "web.log", **settings).wait_until_ready()


def freeze_once(clients: Clients, redis: RedisServer, seconds: float) -> Outage:
    """Opens, resets and resumes streams before and while Redis is frozen, and sends a new message."""
    sent = [clients.send(f"/slow {scaled(REPLY_SECONDS)} {WORDS}") for _ in range(REPLIES)]
    assert clients.wait_for(lambda: all(stream.message_id for stream in sent), DEADLINE)
    tabs = [clients.follow(stream) for stream in sent]
    others = [clients.resend(stream, resumable=False) for stream in sent]
    assert clients.wait_for(lambda: all(stream.text for stream in sent + tabs + others), DEADLINE)
    redis.freeze()
    frozen_at = monotonic()
    for tab in tabs[::2]:
        clients.reset(tab)
    late = [clients.follow(stream, stream.last_id) for stream in sent[::4]]
    new = [clients.send("hello")]
    clients.wait_for(lambda: monotonic() > frozen_at + seconds * SCALE, seconds * SCALE)
    redis.thaw()
    returning = sent + tabs + late + new
    assert clients.wait_for(all_done(returning + others), DEADLINE), states(returning + others)
    return Outage(
        ends_of(returning), ends_of(others), [states([stream]) for stream in sent + tabs + new if not stream.is_exact()]
    )


def ends_of(streams: list[Stream]) -> Counter[str]:
    return Counter(stream.end for stream in streams)


def states(streams: list[Stream]) -> str:
    return ", ".join(
        f"{stream.message_id} {stream.end or 'no end'} {[c.wire.status for c in stream.connections][-3:]}"
        for stream in streams
        if stream.end != "complete"
    )


def under_freezes(folder: Path, kind: str, heartbeat: float) -> list[tuple[str, Outage]]:
    """Outages with a description each."""
    folder.mkdir()
    with RedisServer(folder) as redis, adoptable_broker() as broker:
        server = start_server(kind, folder, redis, heartbeat, broker)
        try:
            with Clients(server.port) as clients:
                return [
                    (f"{kind}, heartbeat {heartbeat:.0f} s, frozen for {seconds:.0f} s", freeze_once(clients, redis, seconds))
                    for seconds in FREEZES
                ]
        finally:
            server.stop()


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.live
@pytest.mark.timeout(60 if SCALE < 1 else 900)
def test_resumable_streams_survive_a_frozen_redis(tmp_path):
    rows = in_parallel(len(ROWS), lambda number: under_freezes(tmp_path / str(number), *ROWS[number]), 900)
    outages = [outage for row in rows for outage in row]

    for name, outage in outages:
        print(f"{name}: {outage}")
    for name, outage in outages:
        assert set(outage.resumable) == {"complete"}, (name, outage)
        assert not outage.inexact, (name, outage)
        assert set(outage.others) <= {"complete", *CONNECTION_ERRORS}, (name, outage)
