"""The embedded broker with its journal and the bundled engine, killed repeatedly under load."""

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
from tests.faults.deployments import HIGH_LIMITS
from tests.faults.load import Clients, Stream, all_done
from tests.faults.reply_checks import add_readers, assert_exact_reply, assert_reread, assert_sequential, first_token_at
from tests.live import Browser, Server, eventually, free_port, in_parallel

SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS", "0"))
"""Repeats the test for this long, in `make soak`."""
DEADLINE = 120.0
USERS, MESSAGES, KILLS = 50, 10, 10
"""Each user sends two messages around each of the first five kills."""
MAX_KILLING_SECONDS = 30.0
"""Seconds of one round in which processes are killed."""
WORDS, WORD_SECONDS, WORD_CHARACTERS = (3, 10), 0.1, 400
MIN_ENDED = USERS // 2
"""Replies that must end before the next late kill, so that few replies are killed four times."""
LATE_KILL_SECONDS = (0.0, 1.0)
"""Seconds from then to the kill, between these bounds."""
EARLY_KILL_SECONDS = (0.2, 2.0)
"""Seconds from the start to an early kill, which may come while the server reads its journal; between these bounds."""

PAGE_BYTES = 4096
EXPIRED_ENTRY_BYTES = 1000
"""Per expired message, for a day: its idempotency key with a digest (200) and a tombstone (120), in half-full pages."""

pytestmark = [pytest.mark.live]


def message(name: str, words: int) -> str:
    return " ".join(f"{name}.{number}.{'x' * WORD_CHARACTERS}" for number in range(words))


class Embedded:
    """One server at a time, always with the same port, file and database."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "queue" / "queue.db"
        self._folder = folder
        self._files = {"QUEUE_FILE": str(self.file), "DATABASE_URL": f"sqlite:///{folder}/chat.db"}
        self._starts = 0
        self.port = free_port()
        self.kills = 0

    def start(self, **settings: str) -> Server:
        self._starts += 1
        settings = {**HIGH_LIMITS, **self._files, "ECHO_WORD_SECONDS": str(WORD_SECONDS), **settings}
        self.server = Server("gunicorn", self._folder / f"web-{self._starts}.log", self.port, **settings)
        return self.server

    def restart(self, **settings: str) -> Server:
        self.server.crash()
        return self.start(**settings).wait_until_ready()

    def kill(self) -> None:
        """Kills the server; `start` starts the next one."""
        self.kills += 1
        self.server.crash()

    def kill_worker(self) -> None:
        """Kills the gunicorn worker, which gunicorn replaces."""
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


@pytest.mark.slow
@pytest.mark.timeout(400 + 3 * SOAK_SECONDS)
def test_a_server_killed_at_random_stores_each_reply_once(embedded):
    embedded.server.wait_until_ready()
    deadline = time.monotonic() + SOAK_SECONDS

    rounds = 0
    while rounds == 0 or time.monotonic() < deadline:
        rounds += 1
        streams = run_under_kills(embedded, rounds)
        in_parallel(USERS, partial(assert_stored_once, embedded.server, streams), DEADLINE)
        assert_shrinks(embedded, rounds * USERS * MESSAGES)

    assert "Traceback" not in embedded.logs
    print(f"{rounds} times {USERS * MESSAGES} messages, {embedded.kills} kills")


def run_under_kills(embedded: Embedded, seed: int) -> list[Stream]:
    rng = random.Random(seed)
    with Clients(embedded.port, seed) as clients:
        streams: list[Stream] = []
        tabs: list[Stream] = []
        deadline = time.monotonic() + MAX_KILLING_SECONDS
        for number in range(KILLS):
            before, after = messages_around_kill(seed, number, rng)
            streams += [clients.send(*message_and_user) for message_and_user in before]
            kills, kills_worker = time.monotonic() < deadline, number > 0 and rng.random() < 0.3
            if kills:
                embedded.kill_worker() if kills_worker else embedded.kill()
            streams += [clients.send(*message_and_user) for message_and_user in after]
            if kills and not kills_worker:
                assert clients.wait_for(lambda sent=tuple(streams): all(stream.connections for stream in sent))
                embedded.start()
            if number % 3 == 1:
                clients.wait_for(all_done(streams), rng.uniform(*EARLY_KILL_SECONDS))
            else:
                wait_until_some_ended(clients, embedded, streams, rng)
            tabs += reset_and_add_readers(clients, streams, tabs, number)
        embedded.server.wait_until_ready()
        assert clients.wait_for(all_done([*streams, *tabs]), DEADLINE), [stream.events for stream in streams if not stream.done]

        assert all(tab.end for tab in tabs), "resumed streams receive the end"
        assert_round(clients, streams)
        return streams


def wait_until_some_ended(clients: Clients, embedded: Embedded, streams: list[Stream], rng: random.Random) -> None:
    embedded.server.wait_until_ready()
    enough = ended(streams) + MIN_ENDED
    clients.wait_for(lambda: ended(streams) >= enough, MAX_KILLING_SECONDS / 4)
    clients.wait_for(all_done(streams), rng.uniform(*LATE_KILL_SECONDS))


def ended(streams: list[Stream]) -> int:
    return sum(bool(stream.end) for stream in streams)


def messages_around_kill(seed: int, kill: int, rng: random.Random) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Messages with their users, shuffled: those to send before a kill, and those to send right after it."""
    numbers = range(2 * kill, min(2 * kill + 2, MESSAGES))
    sent = [
        (message(f"{seed}/{user}/{number}", rng.randint(*WORDS)), f"user-{seed}-{user}")
        for number in numbers
        for user in rng.sample(range(USERS), USERS)
    ]
    return sent[: len(sent) // 4], sent[len(sent) // 4 :]


def reset_and_add_readers(clients: Clients, streams: list[Stream], tabs: list[Stream], number: int) -> list[Stream]:
    """Resets some tabs, and adds readers of the running replies."""
    for tab in tabs[number::3]:
        clients.reset(tab)
    return add_readers(clients, [stream for stream in streams if not stream.done])[0]


def assert_round(clients: Clients, streams: list[Stream]) -> None:
    for stream in streams:
        assert_exact_reply(stream)
    # "Processing..." may be sent before it is logged; a first word, or the end of the previous reply, is not.
    assert_sequential(streams, first_token_at)
    assert_sequential(assert_reread(clients, streams))
    assert any(stream.restarts for stream in streams), "some had sent output when their process died"
    assert any(connection.outcome == "cut" for stream in streams for connection in stream.connections)
    assert any(stream.connections[0].outcome == "refused" for stream in streams), "some were sent while no process listened"


def assert_stored_once(server: Server, streams: list[Stream], number: int) -> None:
    """Checks that one user's history has each message with its reply exactly once."""
    user = sorted({stream.user for stream in streams})[number]
    turns = Browser(server, user).request("GET", "/api/chat/history?limit=50").json()["entries"]
    complete = [stream.message for stream in streams if stream.user == user and stream.end == "complete"]
    assert [turn["user_message"] for turn in turns] == [turn["assistant_response"] for turn in turns]
    assert sorted(turn["user_message"] for turn in turns) == sorted(complete)


def assert_shrinks(embedded: Embedded, messages: int) -> None:
    """Checks that the file shrinks to the entries kept for a day, and spare pages, once all replies have expired.

    Free pages are released above twice SPARE_PAGES; the last row stays, as it has the last event's id.
    """
    bound = 2 * SPARE_PAGES * PAGE_BYTES + messages * EXPIRED_ENTRY_BYTES + 2 * ROW_BYTES
    before = embedded.sizes
    assert sum(before) > bound, "the file must be larger than the bound before"
    embedded.restart(RETENTION_SECONDS="1")

    assert eventually(lambda: embedded.sizes[0] < bound and embedded.sizes[1] <= WAL_BYTES, 20), (before, embedded.sizes, bound)
    assert eventually(lambda: logged_bytes(embedded.file) < ROW_BYTES), logged_bytes(embedded.file)
    embedded.restart()


def logged_bytes(file: Path) -> int:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT total(length(data)) FROM log").fetchone()[0])
