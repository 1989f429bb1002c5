"""Responses of an OpenAI-compatible server, byte for byte like OpenAI's."""

import json
from typing import Any

from tests.wire_server import LAST_CHUNK, WireServer, chunk, reply, stream_head

HEAD = stream_head("text/event-stream; charset=utf-8", openai_processing_ms="187")


def data(content: Any) -> bytes:
    text = content if isinstance(content, str) else json.dumps(content, separators=(",", ":"))
    return chunk(f"data: {text}\n\n".encode())


def piece(delta: dict[str, Any], finish_reason: str | None = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason} | fields
    return data(completion([choice]))


def completion(choices: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    head = {"id": "chatcmpl-B9", "object": "chat.completion.chunk", "created": 1741570283, "model": "gpt-4o-mini-2024-07-18"}
    return head | {"service_tier": "default", "system_fingerprint": "fp_06737a9306", "choices": choices, "usage": None} | fields


BEGIN = piece({"role": "assistant", "content": "", "refusal": None})
USAGE = data(completion([], usage={"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}))
DONE = data("[DONE]")


def text_deltas(*texts: str) -> list[bytes]:
    return [piece({"content": text}) for text in texts]


def full_reply(*texts: str) -> list[bytes]:
    """A complete, successful reply."""
    return [HEAD, BEGIN, *text_deltas(*texts), piece({}, "stop"), USAGE, DONE, LAST_CHUNK]


def error_reply(status: str, **headers: str) -> bytes:
    error = {"message": "Somebody's words.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}
    return reply(json.dumps({"error": error}).encode(), status, **headers)


def settings_of(server: WireServer) -> dict[str, str]:
    return {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": "sk-test", "OPENAI_MODEL": "small"}
