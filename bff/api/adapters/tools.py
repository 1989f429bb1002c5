"""Parses tool events and pairs each result with its call. Engines name the fields differently."""

from typing import Any, Final, NamedTuple

from bff.api.adapters.base import json_safe

_IDS: Final = ("tool_call_id", "tool_use_id", "toolCallId", "call_id", "id")
_NAMES: Final = ("tool", "name", "tool_name", "toolName")
_INPUTS: Final = ("input", "args", "arguments", "parameters")
_OUTPUTS: Final = ("result", "output", "content")


class Call(NamedTuple):
    id: str
    name: str
    input: Any = None


class Result(NamedTuple):
    call: Call
    new: bool
    """The call was not sent on this stream: its event was lost, or an earlier stream of this reader sent it."""
    output: Any


class Tools:
    """The tool calls of one reply. A result belongs to the call whose id it has, else to the oldest open call of its tool."""

    def __init__(self, message_id: str, sent: bool) -> None:
        self.sent = sent
        self._message_id = message_id
        self._count = 0
        self._open: dict[str, Call] = {}

    def call(self, content: dict[str, Any]) -> Call:
        self.sent = True
        self._count += 1
        call_id = _text(content, _IDS) or f"{self._message_id}-tool-{self._count}"
        call = Call(call_id, _text(content, _NAMES) or "tool", _value(content, _INPUTS))
        self._open[call_id] = call
        return call

    def result(self, content: dict[str, Any]) -> Result:
        call_id, name = _text(content, _IDS), _text(content, _NAMES)
        open_id = call_id or next((call.id for call in self._open.values() if name in {"", call.name}), "")
        known = self._open.get(open_id)
        call = known or self.call({"id": call_id, "name": name})
        self._open.pop(call.id, None)
        return Result(call, known is None, _value(content, _OUTPUTS))


def _text(content: dict[str, Any], names: tuple[str, ...]) -> str:
    """The first non-empty string among the named fields; "" if there is none."""
    return next((value for name in names if isinstance(value := content.get(name), str) and value), "")


def _value(content: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The first of the named fields that is present, else None."""
    return json_safe(next((content[name] for name in names if name in content), None))
