"""The agent `broker`: what it keeps of another broker's or engine's reply. The contract's suite tests the rest."""

import json
from typing import Any

import pytest

from bff.auth.identity import Identity
from bff.config.environment import load_settings
from bff.engine.agents.base import Ending
from bff.errors import ChatError
from bff.services import Services
from bff.upstream.messages import ChatMessage
from tests.broker_responses import RECEIPT
from tests.live import BASE_ENVIRONMENT, BROKER_KEY
from tests.wire_server import LAST_CHUNK, WireServer, chunk, stream_head

REASONING = {"type": "reasoning", "text": "hm"}
COMPLETE = {"type": "complete", "response": {"responses": ["half"], "truncated": True}}
TOO_LONG = {"type": "error", "error": "no", "code": "context_too_long"}


def ask(waiter: Any, **settings: str) -> tuple[list[Any], Any]:
    """The pieces, and the ending or the error's code."""
    agent = Services(load_settings(BASE_ENVIRONMENT | settings)).agents["broker"]
    pieces, stream = [], agent.stream([ChatMessage("user", "Hi")], Identity("ann", "org"), waiter)
    try:
        while True:
            pieces.append(next(stream))
    except StopIteration as end:
        return [piece for piece in pieces if piece], end.value
    except ChatError as problem:
        return [piece for piece in pieces if piece], problem.code


def events(*contents: dict[str, Any]) -> list[bytes]:
    frames = [f"data: {json.dumps(content)}\nid: {number}-0\n\n".encode() for number, content in enumerate(contents, 1)]
    return [stream_head(), *map(chunk, frames), LAST_CHUNK]


@pytest.mark.parametrize("service", ["BROKER", "ENGINE"])
def test_reasoning_and_the_ending_are_passed_on(service, waiter):
    responses = [[RECEIPT]] * (service == "BROKER") + [events(REASONING, COMPLETE)]
    with WireServer(*responses) as server:
        settings = {f"{service}_BASE_URL": server.url, f"{service}_API_KEY": BROKER_KEY}
        assert ask(waiter, **settings) == ([REASONING, "half"], Ending(truncated=True))


@pytest.mark.parametrize(("service", "code"), [("BROKER", "context_too_long"), ("ENGINE", "upstream_error")])
def test_only_a_broker_with_our_contract_has_our_error_codes(service, code, waiter):
    responses = [[RECEIPT]] * (service == "BROKER") + [events(TOO_LONG)]
    with WireServer(*responses) as server:
        settings = {f"{service}_BASE_URL": server.url, f"{service}_API_KEY": BROKER_KEY}
        assert ask(waiter, **settings) == ([], code)
