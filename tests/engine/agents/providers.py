"""The cases of tests/cases/providers.json: what model servers really send, and what must come of it."""

import json
import random
from base64 import b64decode
from collections.abc import Iterator
from itertools import pairwise
from math import inf
from typing import Any, NamedTuple

from bff.engine.agents.base import Ending
from bff.engine.agents.openai.completion import read_reply
from bff.errors import ChatError, UpstreamUnavailable
from tests.live import ROOT
from tests.wire_server import CUT, HANG, LAST_CHUNK, chunk

CASES: list[dict[str, Any]] = json.loads((ROOT / "tests" / "cases" / "providers.json").read_text())["cases"]
MAX_EVENT_BYTES = 2**20


def name(case: dict[str, Any]) -> str:
    return str(case["name"])


class Outcome(NamedTuple):
    text: str
    end: str
    """complete, length or error."""
    code: str = ""


def expected(case: dict[str, Any]) -> tuple[str, str]:
    return case["expect"]["text"], case["expect"]["end"]


def body_of(case: dict[str, Any]) -> list[bytes]:
    return [b64decode(piece) for piece in case["body"] if isinstance(piece, str)]


def steps_of(case: dict[str, Any], pieces: list[bytes] | None = None) -> list[Any]:
    """Steps for a WireServer. `pieces`: the body, cut elsewhere."""
    fields = "".join(f"{field}: {value}\r\n" for field, value in case["headers"].items())
    head = f"HTTP/1.1 {case['status']}\r\n{fields}Transfer-Encoding: chunked\r\n\r\n".encode()
    body = [chunk(piece) for piece in (body_of(case) if pieces is None else pieces) if piece]
    return [head, *body, {"clean": LAST_CHUNK, "cut": CUT, "hang": HANG}[case["end"]]]


def cuts(data: bytes, seed: str, count: int = 10) -> Iterator[list[bytes]]:
    """The bytes one by one, and cut at random."""
    yield [data[i : i + 1] for i in range(len(data))]
    dice = random.Random(seed)
    for _ in range(count):
        edges = [0, *sorted(dice.randint(0, len(data)) for _ in range(6)), len(data)]
        yield [data[a:b] for a, b in pairwise(edges)]


class Body:
    """A response's body as a `ByteStream` yields it."""

    def __init__(self, chunks: list[bytes], *, is_cut: bool = False) -> None:
        self.deadline = inf
        self._chunks = chunks
        self._is_cut = is_cut

    def chunks(self, _: object) -> Iterator[bytes]:
        yield from self._chunks
        if self._is_cut:
            raise UpstreamUnavailable


class Reading(NamedTuple):
    text: str
    reasoning: str
    ending: Ending
    problem: ChatError | None

    @property
    def outcome(self) -> Outcome:
        if self.problem is not None:
            return Outcome(self.text, "error", self.problem.code)
        if not self.text.strip():  # See ReplyBuffer.
            return Outcome(self.text, "error", "answer_incomplete")
        return Outcome(self.text, "length" if self.ending.truncated else "complete")


def read(chunks: list[bytes], *, is_cut: bool = False, tools_offered: bool = False) -> Reading:
    text, reasoning, ending, problem = "", "", Ending(), None
    try:
        pieces = read_reply(Body(chunks, is_cut=is_cut), None, MAX_EVENT_BYTES, tools_offered=tools_offered)
        while True:
            piece = next(pieces)
            if isinstance(piece, str):
                text += piece
            elif piece is not None:
                assert piece["type"] == "reasoning"
                reasoning += piece["text"]
    except StopIteration as end:
        ending = end.value
    except ChatError as error:
        problem = error
    return Reading(text, reasoning, ending, problem)
