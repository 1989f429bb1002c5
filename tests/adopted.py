"""The app in front of a broker that numbers nothing, which says what the bundled engine would: the same tests run over both.

Two more ways to serve the app: "adopted", one process whose queue has a journal, and "adopted fleet", many around one Redis.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from bff.auth.identity import Identity
from bff.engine.agents.demo import Demo
from bff.http import waiting
from bff.upstream.messages import ChatMessage
from tests.live import BROKER_KEY
from tests.original_broker import OriginalBroker

KINDS = ["gunicorn", "flask", "fleet", "adopted"]
over_adopted = pytest.mark.parametrize("kind", KINDS, indirect=True)
"""For tests that start their server: a fleet takes long to start."""
over_single = pytest.mark.parametrize("single", ["gunicorn", "flask", "adopted"], indirect=True)
over_all = pytest.mark.parametrize("kind", [*KINDS, "adopted fleet"], indirect=True)
"""For tests that share one."""
LOCK_SECONDS = 0.3
"""For which the broker holds its user's lock after a stream was cut."""


def adoptable_broker(word_seconds: str = "0.002", engine_url: str = "") -> OriginalBroker:
    """Speaks as the bundled engine does, or passes on what the engine at `engine_url` says."""
    reply = engine_text(engine_url) if engine_url else demo_text(float(word_seconds))
    return OriginalBroker(lock_seconds=LOCK_SECONDS, reply=reply)


def settings_of(broker: OriginalBroker) -> dict[str, str]:
    return {"BROKER_BASE_URL": broker.url, "BROKER_API_KEY": BROKER_KEY}


def demo_text(word_seconds: float) -> Callable[[str], Iterator[str]]:
    agent = Demo(word_seconds)

    def reply(text: str) -> Iterator[str]:
        with closing(waiting.new_waiter()) as waiter:
            for piece in agent.stream([ChatMessage("user", text)], Identity("", ""), waiter):
                if isinstance(piece, str):
                    yield piece

    return reply


def engine_text(url: str) -> Callable[[str], Iterator[str]]:
    """The text of each `progress` event. Closed early, it hangs up on the engine."""
    address = urlsplit(url)

    def reply(text: str) -> Iterator[str]:
        with closing(HTTPConnection(address.hostname or "", address.port, timeout=60)) as connection:
            connection.request("POST", "/api/v1/chat/stream", json.dumps({"message": text}))
            for line in connection.getresponse():
                content = json.loads(line[6:]) if line.startswith(b"data: ") else {}
                if content.get("type") == "complete":
                    return
                if content.get("type") == "progress":
                    yield content["text"]

    return reply
