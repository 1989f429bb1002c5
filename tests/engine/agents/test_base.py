"""Agents with and without options: what they are called with."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from bff.auth.identity import Identity
from bff.engine.agents.base import NO_OPTIONS, Piece, open_stream
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


def test_a_message_has_openais_format():
    call = {"id": "call-1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

    assert ChatMessage("assistant", "", {"tool_calls": [call]}).as_json() == {
        "role": "assistant",
        "content": "",
        "tool_calls": [call],
    }
    assert ChatMessage("user", "hi").as_json() == {"role": "user", "content": "hi"}
