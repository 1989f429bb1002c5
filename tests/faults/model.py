"""A stand-in for a language model that counts its calls, and in whose words one sees at which call they were said.

It speaks OpenAI's `/chat/completions`. What it says to a question, see `question` in tests/faults/engine.py; a name that
begins with "failing" fails the first time.
"""

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from tests.engine.agents.openai_server import BEGIN, DONE, HEAD, piece, refusal, settings_of, words
from tests.faults.engine import answer
from tests.wire_server import LAST_CHUNK, Request, WireServer


class Model:
    def __init__(self) -> None:
        self.asked: defaultdict[str, int] = defaultdict(int)
        """How often, by question."""
        self._lock = threading.Lock()
        self._server = WireServer(self._answer)
        self.settings = settings_of(self._server)

    def __enter__(self) -> "Model":
        self._server.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._server.__exit__(*error)

    def _answer(self, request: Request) -> Iterator[Any]:
        question = json.loads(request.body)["messages"][-1]["content"]
        with self._lock:
            self.asked[question] += 1
            asking = self.asked[question]
        if question.startswith("failing") and asking == 1:
            yield refusal("500 Internal Server Error")
            return
        _, _, apart, silence = question.split()
        yield HEAD + BEGIN
        yield float(silence)
        for word in words(*answer(question, asking)):
            yield word
            yield float(apart)
        yield piece({}, "stop") + DONE + LAST_CHUNK
