"""Every event that the AG-UI encoder emits is valid by the schema that AG-UI publishes, with no field that it does not know."""

import json
import subprocess
from typing import Any

import pytest

from bff.api.adapters.ag_ui import AgUiEncoder
from bff.api.adapters.base import Sent
from tests.clients.conftest import HERE, node_or_skip

pytestmark = pytest.mark.servers

USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
RESPONSE = {"responses": ["In the beginning"], "response_language": "en", "voice_audio_base64": None}
REPLIES: dict[str, list[dict[str, Any]]] = {
    "text": [
        {"type": "status", "message": "Message queued...", "position": 2},
        {"type": "status", "message": "Processing..."},
        {"type": "progress", "text": "In the "},
        {"type": "keepalive"},
        {"type": "progress", "text": "beginning"},
        {"type": "complete", "response": RESPONSE | {"attachments": [{"url": "/a"}]}},
    ],
    "text at the end": [{"type": "complete", "response": RESPONSE | {"responses": ["one", "two"]}}],
    "reasoning": [
        {"type": "reasoning", "text": "The user wants "},
        {"type": "reasoning", "text": "a verse."},
        {"type": "progress", "text": "In the beginning"},
        {"type": "reasoning", "text": "And now?"},
        {"type": "complete", "response": RESPONSE | {"truncated": True, "usage": USAGE}},
    ],
    "usage without numbers": [
        {"type": "complete", "response": RESPONSE | {"usage": {"prompt_tokens": "9", "total_tokens": -1}}}
    ],
    "tools": [
        {"type": "tool_use", "tool": "fetch", "input": {"reference": "John 3:16"}},
        {"type": "tool_result", "tool": "fetch", "result": {"text": "For God"}},
        {"type": "tool_use", "id": "call-1", "name": "count"},
        {"type": "tool_result", "id": "call-1", "output": 3},
        {"type": "tool_result", "id": "call-2", "content": None},
        {"type": "complete", "response": RESPONSE},
    ],
    "error": [
        {"type": "progress", "text": "This goes "},
        {"type": "error", "error": "Please try again.", "code": "upstream_error", "request_id": "r-1"},
    ],
    "stopped": [{"type": "progress", "text": "one "}, {"type": "stopped", "response": RESPONSE | {"responses": ["one "]}}],
    "restart": [{"type": "tool_use", "tool": "fetch"}, {"type": "restart"}, {"type": "complete", "response": RESPONSE}],
    "events of the engine": [{"type": "thought", "depth": 3}, {"type": "complete", "response": RESPONSE}],
}


def encoded(reply: list[dict[str, Any]]) -> list[dict[str, Any]]:
    encoder = AgUiEncoder("m-1", {"threadId": "t-1", "runId": "r-1"}, Sent.NOTHING)
    events = [dict(event) for event in reply]
    data = [*encoder.preamble, *(text for event in events for text in encoder.encode(event.pop("type"), event))]
    return [json.loads(text) for text in data]


def test_every_event_is_valid_by_the_published_schema():
    events = [event for reply in REPLIES.values() for event in encoded(reply)]

    checked = subprocess.run(
        [node_or_skip(), "ag_ui_schema.mjs"], cwd=HERE, input=json.dumps(events), capture_output=True, text=True, timeout=30
    )

    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout) == []


def test_the_replies_have_every_event_that_the_encoder_knows():
    emitted = {event["type"] for reply in REPLIES.values() for event in encoded(reply)}

    assert emitted == {
        *("RUN_STARTED", "RUN_FINISHED", "RUN_ERROR", "CUSTOM"),
        *("TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"),
        *("REASONING_START", "REASONING_MESSAGE_START", "REASONING_MESSAGE_CONTENT", "REASONING_MESSAGE_END", "REASONING_END"),
        *("TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT"),
    }


@pytest.mark.parametrize(
    ("reply", "fields"),
    [
        ("text", {}),
        ("stopped", {"outcome": {"type": "cancelled"}}),
        (
            "reasoning",
            {
                "metadata": {"finishReason": "length"},
                "usage": [{"inputTokens": 9, "outputTokens": 4, "totalTokens": 13}],
            },
        ),
        ("usage without numbers", {}),
    ],
)
def test_a_run_finishes_in_the_protocols_terms(reply, fields):
    assert encoded(REPLIES[reply])[-1] == {"type": "RUN_FINISHED", "threadId": "t-1", "runId": "r-1"} | fields
