"""The body of a request for a chat completion."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bff.upstream.messages import ChatMessage

_KEPT_ROLES: Final = frozenset({"system", "developer"})
"""Roles of messages that are instructions, and no turns."""


def request_body(model: str, history: Sequence[ChatMessage], options: Mapping[str, Any]) -> dict[str, Any]:
    """`options`: further fields, such as sampling parameters; they cannot replace the model, the messages and `stream`."""
    messages = [message.as_json() for message in history]
    return {**options, "model": model, "messages": messages, "stream": True}


def with_fewer_turns(history: Sequence[ChatMessage], tokens: int | None) -> list[ChatMessage] | None:
    """The newest turns, for a model that refused the whole history. None if there are no older turns to leave out.

    `tokens`: the model's limit, if it is known. A token is at least one character in nearly every script, and a quarter
    of the refused history is short enough for most models.
    """
    total = sum(len(message.content) for message in history)
    characters = min(total // 4, tokens or total)
    starts = [number for number, message in enumerate(history) if message.role == "user"]
    for start in starts[1:]:
        if start == starts[-1] or sum(len(message.content) for message in history[start:]) <= characters:
            kept = [message for message in history[:start] if message.role in _KEPT_ROLES]
            return [*kept, *history[start:]]
    return None
