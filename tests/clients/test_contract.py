"""What a user sees in each client, case by case: contract.mjs runs the same cases with all of them, on one server."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from bff.engine.agents.demo import UNICODE

pytestmark = [pytest.mark.live, pytest.mark.timeout(90)]

ERROR = {"text": "This goes ", "error": "The assistant could not answer. Please try again."}


def shown(text: str) -> dict[str, str]:
    return {"text": text}


EXPECTED: dict[str, Any] = {
    "answer": [shown("Hello, streaming world"), shown("and again")],
    "unicode": shown(UNICODE),
    "error": [ERROR, shown("after it")],
    "silence": shown("That were 1 seconds."),
    "tool": shown("For God so loved the world."),
    "stop": {"status": 202, "shown": shown("one "), "idle": True},
    "cuts": [shown("one two three")] * 12,
    "reload": {"before": shown("one two three"), "after": shown("one two three")},
    "tabs": {"before": [shown("one two"), shown("three four")], "after": [shown("one two"), shown("three four")]},
}
CLIENTS = (
    "ai-sdk",
    "workflow",
    "tanstack",
    "tanstack-hydrated",
    "ag-ui",
    "openai",
    "eventsource",
    "eventsource-client",
    "fetch-event-source",
)
CHATLESS = {("openai", case) for case in ("reload", "tabs")}
"""Cases that a client does not have: OpenAI's API knows no chats."""


@pytest.fixture(scope="module")
def results(run_node: Callable[..., dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
    """Runs a client's cases once."""
    known: dict[str, dict[str, Any]] = {}

    def of(client: str) -> dict[str, Any]:
        if client not in known:
            known[client] = run_node("contract.mjs", client, *(case for case in EXPECTED if (client, case) not in CHATLESS))
        return known[client]

    return of


@pytest.mark.parametrize("case", EXPECTED)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_shows_the_reply(results, client, case):
    if (client, case) in CHATLESS:
        pytest.skip("the API knows no chats")
    assert results(client)[case] == EXPECTED[case], json.dumps(results(client)[case], indent=1)
