"""The objects of OpenAI's Responses API: https://platform.openai.com/docs/api-reference/responses/object.

They have all fields that https://www.openresponses.org requires.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from bff.errors import BY_CODE, InternalError
from bff.upstream.output import OutputBlock

ID_PREFIX: Final = "resp_"
_ERROR_CODES: Final = {"context_too_long": "invalid_prompt", "too_many_requests": "rate_limit_exceeded"}
"""OpenAI's codes for errors of ours; of all others, "server_error"."""


class Head(NamedTuple):
    """What all objects of a response have in common."""

    uuid: UUID
    created_at: int
    """Unix time in seconds."""
    fields: Mapping[str, Any]
    """The fields that the request set."""

    @property
    def id(self) -> str:
        return f"{ID_PREFIX}{self.uuid.hex}"


class End(NamedTuple):
    """How a response ended."""

    status: str
    output: Sequence[OutputBlock] = ()
    """[] unless it is completed or incomplete, as in OpenAI's API."""
    usage: Mapping[str, int] | None = None
    error: Mapping[str, Any] | None = None
    completed_at: int | None = None


def response(head: Head, end: End) -> dict[str, Any]:
    return {
        **head.fields,
        "id": head.id,
        "object": "response",
        "created_at": head.created_at,
        "completed_at": end.completed_at,
        "status": end.status,
        "error": end.error,
        "incomplete_details": {"reason": "max_output_tokens"} if end.status == "incomplete" else None,
        "output": items(head, end.output, truncated=end.status == "incomplete"),
        "usage": usage(end.usage),
    }


def items(head: Head, blocks: Sequence[OutputBlock], *, truncated: bool = False) -> list[dict[str, Any]]:
    last = len(blocks) - 1
    statuses = ["incomplete" if truncated and index == last else "completed" for index in range(len(blocks))]
    return [item(head, index, block, status) for index, (block, status) in enumerate(zip(blocks, statuses, strict=True))]


def item(head: Head, index: int, block: OutputBlock, status: str) -> dict[str, Any]:
    """An output item. Without content as long as it has no text."""
    content = [part(block)] if block.text else []
    if block.kind == "reasoning":
        return {"type": "reasoning", "id": item_id(head, index, block), "summary": [], "content": content, "status": status}
    return {"type": "message", "id": item_id(head, index, block), "role": "assistant", "status": status, "content": content}


def item_id(head: Head, index: int, block: OutputBlock) -> str:
    """The same in each process and after a restart."""
    return f"{'rs' if block.kind == 'reasoning' else 'msg'}_{head.uuid.hex}{index:04}"


def part(block: OutputBlock) -> dict[str, Any]:
    if block.kind == "reasoning":
        return {"type": "reasoning_text", "text": block.text}
    return {"type": "output_text", "text": block.text, "annotations": [], "logprobs": []}


def usage(counts: Mapping[str, int] | None) -> dict[str, Any] | None:
    """`counts`: as of a chat completion."""
    if not counts:
        return None
    return {
        "input_tokens": counts["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": counts["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": counts["total_tokens"],
    }


def error(code: str, message: str = "") -> dict[str, Any]:
    """`code`: one of ours, which is the error's `type`. `message`: by default the code's."""
    text = message or str(BY_CODE.get(code, InternalError)())
    return {"code": _ERROR_CODES.get(code, "server_error"), "message": text, "param": None, "type": code}


def input_item(item_id: UUID, role: str, parts: Sequence[str]) -> dict[str, Any]:
    if role == "assistant":
        content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []} for text in parts]
    else:
        content = [{"type": "input_text", "text": text} for text in parts]
    return {"type": "message", "id": f"msg_{item_id.hex}", "role": role, "status": "completed", "content": content}


def item_list(page: Sequence[Mapping[str, Any]], *, has_more: bool) -> dict[str, Any]:
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return {"object": "list", "data": page, "first_id": first, "last_id": last, "has_more": has_more}
