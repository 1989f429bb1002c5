"""What servers occupy stays flat while readers of every kind come and go."""

import os
import re
import time
from collections.abc import Callable
from statistics import median

import pytest
from redis import Redis

from bff.ops.redis import connect
from tests.db.talk import ROOM, ConversationBrowser
from tests.faults.test_churn import MIB
from tests.faults.test_journal_killed import EXPIRED_ENTRY_BYTES
from tests.faults.test_rounds import CONCURRENCY, READERS, RETENTION_SECONDS, WORDS, run_rounds, settings
from tests.live import Server, descriptors_of, last_of, memory_of, threads_of

SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS", "0"))
"""How long each test runs, in `make soak`."""
ROUNDS_PER_SAMPLE = 3
PAUSE_SECONDS = 3.0 if SOAK_SECONDS else 0.0
"""Between two rounds, so that an hour of them leaves the machine usable."""
WARM_SAMPLES = 0.25
"""The share of the samples that shows what servers occupy at first."""
SLACK = {"descriptors": 4, "threads": 2, "keys": 50}
MEMORY_SLACK = 8 * MIB
"""Per process: SQLite's caches fill up, and garbage is collected once a minute."""
REMEMBERED_BYTES = 1000
"""For a day, per message, in the memory of a process that has the queue: see bff/broker/queue/ttl_cache.py."""

REMEMBERED = re.compile(r"\}:[mc]:")

Sample = dict[str, int]

pytestmark = [pytest.mark.slow, pytest.mark.live, pytest.mark.timeout(120 + 3 * SOAK_SECONDS)]


def conversation(browser: ConversationBrowser) -> None:
    """One reply, read to its end; then the conversation is deleted."""
    chat = browser.begin(WORDS)
    assert '"token"' in browser.open_stream(chat).read().decode()
    browser.request("DELETE", f"{ROOM}/{chat}").close()


def complete(browser: ConversationBrowser) -> None:
    assert last_of(browser.say(WORDS))["type"] == "complete"


ALL_READERS = [*READERS, conversation, complete]
READERS_PER_SAMPLE = ROUNDS_PER_SAMPLE * CONCURRENCY * len(ALL_READERS)


def occupied(pids: list[int]) -> Sample:
    """Of all processes together."""
    return {
        "memory": sum(memory_of(pid) for pid in pids),
        "descriptors": sum(descriptors_of(pid) for pid in pids),
        "threads": sum(threads_of(pid) for pid in pids),
    }


def stored(client: Redis) -> Sample:
    """What Redis stores. For a day it remembers each message that has ended, and the ids that its client gave it."""
    remembered = sum(bool(REMEMBERED.search(key)) for key in client.scan_iter(count=1000))
    return {"keys": client.dbsize() - remembered, "remembered": remembered, "redis": client.info()["used_memory"]}


def soak(server: Server, sample: Callable[[], Sample]) -> list[Sample]:
    samples: list[Sample] = []
    start = time.monotonic()
    while len(samples) < 3 or time.monotonic() < start + SOAK_SECONDS:
        for _ in range(ROUNDS_PER_SAMPLE):
            run_rounds(server, 1, ALL_READERS)
            time.sleep(PAUSE_SECONDS)
        time.sleep(RETENTION_SECONDS + 0.5)
        readers = READERS_PER_SAMPLE * (len(samples) + 1)
        samples.append({"seconds": int(time.monotonic() - start), "readers": readers} | sample())
    return samples


def assert_flat(samples: list[Sample], memory: float) -> None:
    """Prints the samples, about twenty of them, and compares the last quarter with the first. `memory`: allowed growth."""
    names = list(samples[0])
    print("", *(f"{name:>12}" for name in names))
    for sample in samples[:: max(1, len(samples) // 20)]:
        print("", *(f"{sample[name]:>12,}" for name in names))
    quarter = max(1, round(len(samples) * WARM_SAMPLES))
    for name, slack in (SLACK | {"memory": memory}).items():
        if name in names:
            first, last = (median(sample[name] for sample in part) for part in (samples[:quarter], samples[-quarter:]))
            assert last <= first + slack, f"{name}: {last:,} after {first:,}"


def test_one_process_with_its_journal_stays_flat(start, tmp_path):
    journal = tmp_path / "queue" / "queue.db"
    server = start("gunicorn", QUEUE_FILE=str(journal), **settings(tmp_path))

    samples = soak(server, lambda: occupied([server.worker_pid]) | {"journal": journal.stat().st_size})

    first, last = samples[0], samples[-1]
    messages = last["readers"] - first["readers"]
    assert_flat(samples, MEMORY_SLACK + messages * REMEMBERED_BYTES)
    assert last["journal"] <= first["journal"] + messages * EXPIRED_ENTRY_BYTES + MIB
    assert "Traceback" not in server.log


def test_two_web_processes_and_two_workers_with_redis_stay_flat(start, tmp_path, clean_redis):
    options = settings(tmp_path) | {"REDIS_URL": clean_redis.url}
    workers = [start("worker", **options) for _ in range(2)]
    web = start("gunicorn", WEB_CONCURRENCY="2", RUN_WORKER="0", **options)
    pids = [*web.children, *(worker.process.pid for worker in workers)]

    with connect(clean_redis.url) as client:
        samples = soak(web, lambda: occupied(pids) | stored(client))
    assert_flat(samples, MEMORY_SLACK * len(pids))
    assert [server.log for server in [web, *workers] if "Traceback" in server.log] == []
