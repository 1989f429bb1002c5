"""Rounds of readers that leave, stop and come back, at every door: after each, memory is what it was before."""

import base64
import json
from collections.abc import Callable
from uuid import uuid4

import pytest

from tests.db.talk import Talk
from tests.faults.test_churn import MIB, YOUNG, counts, settled
from tests.live import Browser, Reply, Server, eventually, in_parallel, last_of, status_of, take

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

WORDS = "one two three four five six"
WARM_UP, ROUNDS = 3, 20
AT_ONCE = 2
"""Of each kind of reader."""
SLACK = {"greenlets": 0, "descriptors": 0, "threads": 0, "ours": 50, "objects": YOUNG, "memory": 8 * MIB}
"""By how much each may have grown: a reader that leaves a cycle leaves some ten of ours."""
VOICE_BYTES, VOICES = 15_000_000, 12


def leave(browser: Talk) -> None:
    take(browser.say(WORDS), 3)


def leave_at_once(browser: Talk) -> None:
    browser.say(WORDS).leave()


def stop(browser: Talk) -> None:
    reply = browser.say("/silence 30")
    assert status_of(browser.stop(reply.message_id)) == 202
    assert last_of(reply)["type"] == "stopped"


def resume(browser: Talk) -> None:
    reply = browser.say(WORDS)
    take(reply, 3)
    assert last_of(browser.follow(reply.message_id))["type"] == "complete"


def leave_v1(browser: Talk) -> None:
    asked = {"model": "default", "stream": True, "messages": [{"role": "user", "content": WORDS}]}
    leave_started(browser.request("POST", "/v1/chat/completions", asked))


def leave_ai_sdk(browser: Talk) -> None:
    asked = {"messages": [{"id": str(uuid4()), "role": "user", "parts": [{"type": "text", "text": WORDS}]}]}
    leave_started(browser.request("POST", "/api/chat/stream?protocol=ai-sdk", asked))


def leave_conversation(browser: Talk) -> None:
    leave_started(browser.hear(browser.begin(WORDS)))


def leave_started(reply: Reply) -> None:
    assert reply.status == 200
    next(reply.frames())
    reply.leave()


READERS: list[Callable[[Talk], None]] = [leave, leave_at_once, stop, resume, leave_v1, leave_ai_sdk, leave_conversation]


def play(server: Server, rounds: int) -> None:
    """Few users, so that what is kept for a user must not grow either."""
    for _ in range(rounds):
        in_parallel(len(READERS) * AT_ONCE, lambda number: READERS[number % len(READERS)](Talk(server, f"user-{number}")))


def grown(server: Server, base: dict[str, int]) -> dict[str, tuple[int, int]]:
    """What there is more of than before. A connection's last moments, after its stream has ended, are waited for."""
    now = counts(server) | {"memory": server.memory()}
    return {name: (base[name], now[name]) for name, slack in SLACK.items() if now[name] > base[name] + slack}


@pytest.mark.parametrize("kind", ["counted", "counted-flask"])
def test_rounds_of_every_reader_leave_nothing_behind(start, kind, tmp_path):
    server = start(
        kind,
        ECHO_WORD_SECONDS="0.01",
        MESSAGES_PER_MINUTE="100000",
        RETENTION_SECONDS="2",
        DATABASE_URL=f"sqlite:///{tmp_path}/chat.db",
    )

    play(server, WARM_UP)
    base = settled(server)
    play(server, ROUNDS)
    settled(server)

    assert eventually(lambda: not grown(server, base), 10), grown(server, base)


def test_voice_messages_that_were_stopped_are_not_kept(start, single):
    browser = Browser(server := start(single))
    assert last_of(browser.say("hello"))["type"] == "complete"
    before = server.memory()
    asked = {"message": "/silence 30", "message_type": "audio", "audio_format": "wav"}
    voice = json.dumps(asked | {"audio_base64": base64.b64encode(bytes(VOICE_BYTES)).decode()}).encode()

    for _ in range(VOICES):
        reply = browser.request("POST", "/api/chat/stream", voice)
        assert next(reply.events())["type"] == "status"
        assert status_of(browser.stop(reply.message_id)) == 202
        assert last_of(reply)["type"] == "stopped"

    assert server.memory() - before < 60 * MIB
