"""The embedded default, killed again and again under load: one process, its journal and the bundled engine."""

import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest

from bff.broker.queue.journal.file import ROW_BYTES, SPARE_PAGES, WAL_BYTES
from tests.faults.houses import ROOM
from tests.faults.load import Crowd, Stream, all_over
from tests.faults.verdicts import assert_answered_exactly, assert_one_after_the_other, more_readers, read_again, spoke_at
from tests.live import Browser, Server, eventually, free_port, in_parallel

SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS", "0"))
"""`make soak`: for so long, and not once only."""
DEADLINE = 120.0
USERS, MESSAGES, KILLS = 50, 10, 10
"""Each user sends two messages around each of the first five kills."""
MAX_KILLING_SECONDS = 30.0
"""Of one round."""
WORDS, WORD_SECONDS, WORD_CHARACTERS = (3, 10), 0.1, 400
ENDED_BETWEEN = USERS // 2
"""Replies that end before a server that is up is killed again: so it is rare that one is killed four times."""
AFTERWARDS = (0.0, 1.0)
"""Seconds from then to the kill."""
STARTING = (0.2, 2.0)
"""Seconds after its start, for a server that is killed while it reads its journal, or a moment later."""

PAGE_BYTES = 4096
REMEMBERED_BYTES = 1000
"""Of one message, for a day: its Idempotency-Key with a digest (200 bytes) and that it expired (120), in half full pages."""

pytestmark = [pytest.mark.live]


def message(name: str, words: int) -> str:
    return " ".join(f"{name}.{number}.{'x' * WORD_CHARACTERS}" for number in range(words))


class Embedded:
    """One server at a time, always on the same port, file and database."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "queue" / "queue.db"
        self._folder = folder
        self._files = {"QUEUE_FILE": str(self.file), "DATABASE_URL": f"sqlite:///{folder}/chat.db"}
        self._starts = 0
        self.port = free_port()
        self.kills = 0

    def start(self, **settings: str) -> Server:
        self._starts += 1
        settings = {**ROOM, **self._files, "ECHO_WORD_SECONDS": str(WORD_SECONDS), **settings}
        self.server = Server("gunicorn", self._folder / f"web-{self._starts}.log", self.port, **settings)
        return self.server

    def restart(self, **settings: str) -> Server:
        self.server.crash()
        return self.start(**settings).wait_until_ready()

    def kill(self) -> None:
        self.kills += 1
        self.server.crash()
        self.start()

    def kill_worker(self) -> None:
        """gunicorn starts another one in its place."""
        self.kills += 1
        with suppress(ProcessLookupError, IndexError):
            os.kill(self.server.children[0], signal.SIGKILL)

    @property
    def logs(self) -> str:
        return "".join(path.read_text(errors="replace") for path in self._folder.glob("web-*.log"))

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes of the journal's file and of its write-ahead log."""
        return self.file.stat().st_size, self.file.with_name(f"{self.file.name}-wal").stat().st_size


@pytest.fixture
def embedded(tmp_path) -> Iterator[Embedded]:
    embedded = Embedded(tmp_path)
    embedded.start()
    yield embedded
    embedded.server.crash()


@pytest.mark.timeout(400 + 3 * SOAK_SECONDS)
def test_a_server_killed_at_random_answers_each_message_once(embedded):
    embedded.server.wait_until_ready()
    deadline = time.monotonic() + SOAK_SECONDS

    rounds = 0
    while rounds == 0 or time.monotonic() < deadline:
        rounds += 1
        streams = under_fire(embedded, rounds)
        in_parallel(USERS, partial(assert_stored_once, embedded.server, streams), DEADLINE)
        assert_shrinks(embedded, rounds * USERS * MESSAGES)

    assert "Traceback" not in embedded.logs
    print(f"{rounds} times {USERS * MESSAGES} messages, {embedded.kills} kills")


def under_fire(embedded: Embedded, seed: int) -> list[Stream]:
    chance = random.Random(seed)
    with Crowd(embedded.port, seed) as crowd:
        streams: list[Stream] = []
        tabs: list[Stream] = []
        deadline = time.monotonic() + MAX_KILLING_SECONDS
        for number in range(KILLS):
            before, after = to_send(seed, number, chance)
            streams += [crowd.say(*one) for one in before]
            if time.monotonic() < deadline:
                embedded.kill_worker() if number and chance.random() < 0.3 else embedded.kill()
            streams += [crowd.say(*one) for one in after]
            if number % 3 == 1:
                crowd.wait_for(all_over(streams), chance.uniform(*STARTING))
            else:
                wait_until_some_ended(crowd, embedded, streams, chance)
            tabs += drop_and_add(crowd, streams, tabs, number)
        embedded.server.wait_until_ready()
        assert crowd.wait_for(all_over([*streams, *tabs]), DEADLINE), [stream.events for stream in streams if not stream.over]

        assert all(tab.end for tab in tabs), "whoever comes back learns the end"
        assert_round(crowd, streams)
        return streams


def wait_until_some_ended(crowd: Crowd, embedded: Embedded, streams: list[Stream], chance: random.Random) -> None:
    embedded.server.wait_until_ready()
    enough = ended(streams) + ENDED_BETWEEN
    crowd.wait_for(lambda: ended(streams) >= enough, MAX_KILLING_SECONDS / 4)
    crowd.wait_for(all_over(streams), chance.uniform(*AFTERWARDS))


def ended(streams: list[Stream]) -> int:
    return sum(bool(stream.end) for stream in streams)


def to_send(seed: int, kill: int, chance: random.Random) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Messages with their users: before and right after a kill, in any order."""
    numbers = range(2 * kill, min(2 * kill + 2, MESSAGES))
    sent = [
        (message(f"{seed}/{user}/{number}", chance.randint(*WORDS)), f"user-{seed}-{user}")
        for number in numbers
        for user in chance.sample(range(USERS), USERS)
    ]
    return sent[: len(sent) // 4], sent[len(sent) // 4 :]


def drop_and_add(crowd: Crowd, streams: list[Stream], tabs: list[Stream], number: int) -> list[Stream]:
    """Further readers of what is being answered; some of those that are there lose their line."""
    for tab in tabs[number::3]:
        crowd.drop(tab)
    return more_readers(crowd, [stream for stream in streams if not stream.over])[0]


def assert_round(crowd: Crowd, streams: list[Stream]) -> None:
    for stream in streams:
        assert_answered_exactly(stream)
    # That a reply began may be told before its log has it. Its first word is not, nor is the end of the one before it.
    assert_one_after_the_other(streams, spoke_at)
    assert_one_after_the_other(read_again(crowd, streams))
    assert any(stream.restarts for stream in streams), "some had begun to be told when their process died"
    assert any(connection.how == "cut" for stream in streams for connection in stream.connections)
    assert any(stream.connections[0].how == "refused" for stream in streams), "some were sent while nobody listened"


def assert_stored_once(server: Server, streams: list[Stream], number: int) -> None:
    """One user's history has each message with its reply, in the order of the replies."""
    user = sorted({stream.user for stream in streams})[number]
    turns = Browser(server, user).request("GET", "/api/chat/history?limit=50").json()["entries"]
    complete = [stream.message for stream in streams if stream.user == user and stream.end == "complete"]
    assert [turn["user_message"] for turn in turns] == [turn["assistant_response"] for turn in turns]
    assert sorted(turn["user_message"] for turn in turns) == sorted(complete)


def assert_shrinks(embedded: Embedded, messages: int) -> None:
    """Once all of it has expired, only what is remembered for a day and some spare pages are there.

    Free pages are given back from twice SPARE_PAGES on; the last row stays, as it has the last event's id.
    """
    bound = 2 * SPARE_PAGES * PAGE_BYTES + messages * REMEMBERED_BYTES + 2 * ROW_BYTES
    before = embedded.sizes
    assert sum(before) > bound, "there is nothing to see"
    embedded.restart(RETENTION_SECONDS="1")

    assert eventually(lambda: embedded.sizes[0] < bound and embedded.sizes[1] <= WAL_BYTES, 20), (before, embedded.sizes, bound)
    assert eventually(lambda: logged_bytes(embedded.file) < ROW_BYTES), logged_bytes(embedded.file)
    embedded.restart()


def logged_bytes(file: Path) -> int:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT total(length(data)) FROM log").fetchone()[0])
