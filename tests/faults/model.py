"""A fake language model that counts its calls; the words of a reply contain the number of the call.

It implements OpenAI's `/chat/completions`. For the format of questions see `question` in tests/faults/engine.py; a question
that starts with "failing" fails on the first call.
"""

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from tests.engine.agents.openai_server import BEGIN, DONE, HEAD, error_reply, piece, settings_of, text_deltas
from tests.faults.engine import reply_words
from tests.wire_server import LAST_CHUNK, Request, WireServer

PAUSE_SECONDS = 60.0


class Model:
    def __init__(self) -> None:
        self.calls: defaultdict[str, int] = defaultdict(int)
        """Number of calls by question."""
        self.running = threading.Event()
        """While it is cleared, replies pause after their first word."""
        self.running.set()
        self._lock = threading.Lock()
        self._server = WireServer(self._reply)
        self.settings = settings_of(self._server)

    def __enter__(self) -> "Model":
        self._server.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.running.set()
        self._server.__exit__(*error)

    def _reply(self, request: Request) -> Iterator[Any]:
        question = json.loads(request.body)["messages"][-1]["content"]
        with self._lock:
            self.calls[question] += 1
            call_number = self.calls[question]
        if question.startswith("failing") and call_number == 1:
            yield error_reply("500 Internal Server Error")
            return
        _, _, interval, delay = question.split()
        yield HEAD + BEGIN
        yield float(delay)
        for word in text_deltas(*reply_words(question, call_number)):
            yield word
            yield float(interval)
            self.running.wait(PAUSE_SECONDS)
        yield piece({}, "stop") + DONE + LAST_CHUNK
