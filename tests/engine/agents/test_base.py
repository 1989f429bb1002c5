"""Agents with and without options: what they are called with."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from time import monotonic
from typing import Any

import pytest

from bff.auth.identity import Identity
from bff.engine.agents.base import NO_OPTIONS, Ending, Piece, open_stream
from bff.http.waiting import Waiter
from bff.upstream.messages import ChatMessage

ANN = Identity("ann", "org")
HISTORY = [ChatMessage("system", "Be brief."), ChatMessage("user", "hi")]


class Named:
    id = "named"
    name = "Named"
    description = "For tests."
    repeatable = True


class Plain(Named):
    def stream(self, history: Sequence[ChatMessage], identity: Identity, waiter: Waiter) -> Iterator[Piece]:
        yield history[-1].content


class Sampling(Named):
    def stream(
        self, history: Sequence[ChatMessage], identity: Identity, waiter: Waiter, options: Mapping[str, Any] = NO_OPTIONS
    ) -> Iterator[Piece]:
        yield f"{history[-1].content} {dict(options)}"


class SamplingByName(Named):
    def stream(
        self, history: Sequence[ChatMessage], identity: Identity, waiter: Waiter, *, options: Mapping[str, Any] = NO_OPTIONS
    ) -> Iterator[Piece]:
        yield f"{history[-1].content} {dict(options)}"


class WithoutWaiter(Named):
    """A plain generator that waits in its own way."""

    def __init__(self) -> None:
        self.go_on, self.closed = threading.Event(), threading.Event()

    def stream(self, history: Sequence[ChatMessage], identity: Identity) -> Iterator[Piece]:
        try:
            yield history[-1].content
            assert self.go_on.wait(10)
            yield " again"
            return Ending(truncated=True)
        finally:
            self.closed.set()


@pytest.mark.parametrize(
    ("agent", "options", "reply"),
    [
        (Plain(), {"seed": 7}, "hi"),
        (Plain(), {}, "hi"),
        (Sampling(), {"seed": 7}, "hi {'seed': 7}"),
        (Sampling(), {}, "hi {}"),
        (SamplingByName(), {"seed": 7}, "hi {'seed': 7}"),
    ],
)
def test_an_agent_gets_options_if_it_takes_them(agent, options, reply, waiter):
    assert list(open_stream(agent, HISTORY, ANN, waiter, options)) == [reply]


def test_a_generator_without_a_waiter_runs_in_the_background(waiter):
    agent = WithoutWaiter()
    pieces = open_stream(agent, HISTORY, ANN, waiter, {})
    received = [piece for piece in iter(lambda: next(pieces), "hi") if piece]
    waiter.wake_at = monotonic()
    while next(pieces) is None and not agent.go_on.is_set():
        agent.go_on.set()  # It yields None while the agent waits.
    waiter.wake_at = inf

    with pytest.raises(StopIteration) as end:
        while True:
            next(pieces)

    assert received == []
    assert end.value.value == Ending(truncated=True)
    assert agent.closed.is_set()


def test_a_waiting_generator_is_closed_once_it_has_a_piece(waiter):
    agent = WithoutWaiter()
    pieces = open_stream(agent, HISTORY, ANN, waiter, {})
    next(piece for piece in pieces if piece)
    next(pieces)

    pieces.close()
    assert not agent.closed.is_set()
    agent.go_on.set()

    assert agent.closed.wait(5)


def test_an_error_of_a_generator_without_a_waiter_is_raised(waiter):
    class Broken(Named):
        def stream(self, history: Sequence[ChatMessage], identity: Identity) -> Iterator[Piece]:
            yield "hi"
            raise LookupError(history[-1].content)

    pieces = open_stream(Broken(), HISTORY, ANN, waiter, {})

    with pytest.raises(LookupError, match="hi"):
        list(pieces)


def test_a_message_has_openais_format():
    call = {"id": "call-1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

    assert ChatMessage("assistant", "", {"tool_calls": [call]}).as_json() == {
        "role": "assistant",
        "content": "",
        "tool_calls": [call],
    }
    assert ChatMessage("user", "hi").as_json() == {"role": "user", "content": "hi"}
