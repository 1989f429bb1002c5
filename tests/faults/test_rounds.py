"""Rounds of readers that disconnect, stop and resume through every API do not increase memory use."""

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from tests.db.talk import ConversationBrowser
from tests.faults.test_churn import MIB, UNCOLLECTED_OBJECTS, counts, settled_counts
from tests.live import Browser, Reply, Server, eventually, in_parallel, last_of, status_of, take

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

WORDS = "one two three four five six"
WARM_UP, ROUNDS = 3, 20
CONCURRENCY = 2
"""Readers of each kind at a time."""
SLACK = {"greenlets": 0, "descriptors": 0, "threads": 0, "ours": 50, "objects": UNCOLLECTED_OBJECTS, "memory": 8 * MIB}
"""Allowed growth. A reader that disconnects may leave a reference cycle of about ten objects."""
RETENTION_SECONDS = 2
VOICE_BYTES, VOICE_MESSAGES = 15_000_000, 12


def disconnect(browser: ConversationBrowser) -> None:
    take(browser.say(WORDS), 3)


def disconnect_at_once(browser: ConversationBrowser) -> None:
    browser.say(WORDS).leave()


def stop(browser: ConversationBrowser) -> None:
    reply = browser.say("/silence 30")
    assert status_of(browser.stop(reply.message_id)) == 202
    assert last_of(reply)["type"] == "stopped"


def resume(browser: ConversationBrowser) -> None:
    reply = browser.say(WORDS)
    take(reply, 3)
    assert last_of(browser.follow(reply.message_id))["type"] == "complete"


def disconnect_v1(browser: ConversationBrowser) -> None:
    body = {"model": "default", "stream": True, "messages": [{"role": "user", "content": WORDS}]}
    disconnect_after_first_frame(browser.request("POST", "/v1/chat/completions", body))


def disconnect_ai_sdk(browser: ConversationBrowser) -> None:
    body = {"messages": [{"id": str(uuid4()), "role": "user", "parts": [{"type": "text", "text": WORDS}]}]}
    disconnect_after_first_frame(browser.request("POST", "/api/chat/stream?protocol=ai-sdk", body))


def disconnect_conversation(browser: ConversationBrowser) -> None:
    disconnect_after_first_frame(browser.open_stream(browser.begin(WORDS)))


def disconnect_after_first_frame(reply: Reply) -> None:
    assert reply.status == 200
    next(reply.frames())
    reply.leave()


READERS: list[Callable[[ConversationBrowser], None]] = [
    disconnect,
    disconnect_at_once,
    stop,
    resume,
    disconnect_v1,
    disconnect_ai_sdk,
    disconnect_conversation,
]


def settings(folder: Path) -> dict[str, str]:
    return {
        "ECHO_WORD_SECONDS": "0.01",
        "MESSAGES_PER_MINUTE": "100000",
        "RETENTION_SECONDS": str(RETENTION_SECONDS),
        "DATABASE_URL": f"sqlite:///{folder}/chat.db",
    }


def run_rounds(server: Server, rounds: int, readers: Sequence[Callable[[ConversationBrowser], None]] = READERS) -> None:
    """Uses few users, so that a user's data must not grow either."""
    for _ in range(rounds):
        in_parallel(
            len(readers) * CONCURRENCY,
            lambda number: readers[number % len(readers)](ConversationBrowser(server, f"user-{number}")),
        )


def growth(server: Server, baseline: dict[str, int]) -> dict[str, tuple[int, int]]:
    """The counts that exceed the baseline by more than SLACK."""
    current = counts(server) | {"memory": server.memory()}
    return {name: (baseline[name], current[name]) for name, slack in SLACK.items() if current[name] > baseline[name] + slack}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["counted", "counted-flask"])
def test_rounds_of_every_kind_of_reader_leak_nothing(start, kind, tmp_path):
    server = start(kind, **settings(tmp_path))

    run_rounds(server, WARM_UP)
    baseline = settled_counts(server)
    run_rounds(server, ROUNDS)
    settled_counts(server)

    assert eventually(lambda: not growth(server, baseline), 10), growth(server, baseline)


@pytest.mark.slow
def test_stopped_voice_messages_are_freed(start, single):
    browser = Browser(server := start(single))
    assert last_of(browser.say("hello"))["type"] == "complete"
    before = server.memory()
    body = {"message": "/silence 30", "message_type": "audio", "audio_format": "wav"}
    voice = json.dumps(body | {"audio_base64": base64.b64encode(bytes(VOICE_BYTES)).decode()}).encode()

    for _ in range(VOICE_MESSAGES):
        reply = browser.request("POST", "/api/chat/stream", voice)
        assert next(reply.events())["type"] == "status"
        assert status_of(browser.stop(reply.message_id)) == 202
        assert last_of(reply)["type"] == "stopped"

    assert server.memory() - before < 60 * MIB
