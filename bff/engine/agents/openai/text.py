"""Finds the text and the reasoning of a choice, wherever a server puts them."""

from typing import Any, Final, NamedTuple

from bff.errors import UpstreamError

_REASONING: Final = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
"""Fields of a delta or a message. Servers that send several of them repeat the same text."""
_REASONING_PARTS: Final = frozenset({"thinking", "reasoning", "reasoning_content", "reasoning.text", "reasoning.summary"})
_PART_TEXTS: Final = ("text", "content", "value", "thinking", "reasoning", "summary")


class Texts(NamedTuple):
    text: str
    reasoning: str


def texts_in(choice: dict[str, Any], *, started: bool) -> Texts:
    """`started`: text came before. Raises UpstreamError for text in an unknown form: skipped, it would be missing."""
    delta, message = _object(choice, "delta"), _object(choice, "message")
    found = _texts(delta)
    if found.text or (started and message and choice.get("delta") is not None):
        return found  # A message that comes with deltas repeats their text.
    other = _texts(message) if message else _split(choice.get("text"))
    return Texts(other.text, found.reasoning or other.reasoning)


def _object(choice: dict[str, Any], name: str) -> dict[str, Any]:
    value = choice.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UpstreamError(detail=f"a {name} that is not an object")
    return value


def _texts(fields: dict[str, Any]) -> Texts:
    content, thoughts = _split(fields.get("content"))
    refusal, _ = _split(fields.get("refusal"))
    reasoning = next((text for name in _REASONING if (text := _joined(fields.get(name)))), "")
    return Texts(content + refusal, reasoning or thoughts)


def _split(content: Any) -> Texts:
    """The text of `content`, and the reasoning in its parts."""
    if content is None or isinstance(content, str):
        return Texts(content or "", "")
    parts = [content] if isinstance(content, dict) else content
    if not isinstance(parts, list) or not all(isinstance(part, dict | str) for part in parts):
        raise UpstreamError(detail="content in an unknown form")
    texts = [part for part in parts if not _is_reasoning(part)]
    return Texts(_joined(texts), _joined([part for part in parts if _is_reasoning(part)]))


def _is_reasoning(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in _REASONING_PARTS


def _joined(value: Any) -> str:
    """The text of a string, a part, or a list of parts; "" for anything else, such as a citation."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_joined(part) for part in value)
    if isinstance(value, dict):
        return next((text for name in _PART_TEXTS if (text := _joined(value.get(name)))), "")
    return ""
