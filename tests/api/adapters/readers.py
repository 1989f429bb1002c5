"""One strict reader for each protocol: it asserts the order of events that the protocol requires, and returns their content.

tests/clients runs the official clients.
"""

import json
from collections.abc import Iterable
from typing import NamedTuple


class Reading(NamedTuple):
    texts: list[str]
    end: str
    """How it ended: complete, error or stopped; "" if it did not."""
    tools: list[tuple[str, object, object]] = []
    """The name, input and output of each tool call that has a result."""
    reasoning: list[str] = []
    is_truncated: bool = False

    @property
    def text(self) -> str:
        return "".join(self.texts)


def native(source: Iterable[str]) -> Reading:
    texts, end = [], ""
    for content in map(json.loads, source):
        assert not end, "nothing after the end"
        if content["type"] == "progress" and isinstance(content.get("text"), str):
            texts.append(content["text"])
        elif content["type"] in {"complete", "error", "stopped"}:
            end = content["type"]
            if not texts and end != "error":
                texts = content["response"]["responses"]
    return Reading(texts, end)


class Recorder:
    """Collects what a client would show. Asserts that each text starts once and that only an open one continues."""

    def __init__(self) -> None:
        self.end = ""
        self._texts: dict[str, str] = {}
        self._open = ""
        self._calls: dict[str, tuple[str, str]] = {}
        self._tools: list[tuple[str, object, object]] = []
        self._reasoning: dict[str, str] = {}
        self._is_truncated = False

    def start(self, text_id: str) -> None:
        assert not self._open
        assert text_id not in self._texts
        self._open, self._texts[text_id] = text_id, ""

    def start_reasoning(self, reasoning_id: str) -> None:
        assert not self._open
        assert reasoning_id not in self._reasoning
        self._open, self._reasoning[reasoning_id] = reasoning_id, ""

    def add_reasoning(self, reasoning_id: str, text: str) -> None:
        assert reasoning_id == self._open
        assert text
        self._reasoning[reasoning_id] += text

    def add(self, text_id: str, text: str) -> None:
        assert text_id == self._open
        assert text, "older AG-UI clients reject an empty delta"
        self._texts[text_id] += text

    def close(self, text_id: str) -> None:
        assert text_id == self._open
        self._open = ""

    def call(self, call_id: str, name: str, arguments: str = "") -> None:
        assert not self._open
        self._calls[call_id] = (name, arguments)

    def add_arguments(self, call_id: str, arguments: str) -> None:
        name, earlier = self._calls[call_id]
        self._calls[call_id] = (name, earlier + arguments)

    def result(self, call_id: str, output: object) -> None:
        name, arguments = self._calls[call_id]
        self._tools.append((name, json.loads(arguments), output))

    def finish(self, end: str, *, is_truncated: bool = False) -> None:
        assert not self._open or end == "error"
        self.end, self._is_truncated = end, is_truncated

    def reading(self) -> Reading:
        texts, reasoning = list(self._texts.values()), list(self._reasoning.values())
        return Reading(texts, self.end, self._tools, reasoning, self._is_truncated)


def ai_sdk(source: Iterable[str]) -> Reading:
    recorder, done = Recorder(), False
    for number, data in enumerate(source):
        assert not done, "nothing after [DONE]"
        done = data == "[DONE]"
        if not done:
            assert not recorder.end, "nothing but [DONE] after the end"
            part = json.loads(data)
            assert (part["type"] == "start") == (number == 0)
            _AI_SDK.get(part["type"], _transient)(recorder, part)
    assert done == bool(recorder.end)
    return recorder.reading()


def _transient(_: Recorder, part: dict) -> None:
    assert part["type"].startswith("data-")
    assert part["transient"] is True


_AI_SDK = {
    "start": lambda recorder, part: part["messageId"].index("m-1"),
    "text-start": lambda recorder, part: recorder.start(part["id"]),
    "text-delta": lambda recorder, part: recorder.add(part["id"], part["delta"]),
    "text-end": lambda recorder, part: recorder.close(part["id"]),
    "reasoning-start": lambda recorder, part: recorder.start_reasoning(part["id"]),
    "reasoning-delta": lambda recorder, part: recorder.add_reasoning(part["id"], part["delta"]),
    "reasoning-end": lambda recorder, part: recorder.close(part["id"]),
    "tool-input-available": lambda recorder, part: recorder.call(
        part["toolCallId"], part["toolName"], json.dumps(part["input"])
    ),
    "tool-output-available": lambda recorder, part: recorder.result(part["toolCallId"], part["output"]),
    "finish": lambda recorder, part: recorder.finish("complete", is_truncated=part.get("finishReason") == "length"),
    "abort": lambda recorder, part: recorder.finish("stopped"),
    "error": lambda recorder, part: recorder.finish("error" if part["errorText"] else ""),
}


def ag_ui(source: Iterable[str]) -> Reading:
    recorder = Recorder()
    for number, event in enumerate(map(json.loads, source)):
        assert not recorder.end, "nothing after the end"
        assert (event["type"] == "RUN_STARTED") == (number == 0)
        if event["type"] in {"RUN_STARTED", "RUN_FINISHED"}:
            assert (event["threadId"], event["runId"]) == ("thread-1", "run-1")
        _AG_UI[event["type"]](recorder, event)
    return recorder.reading()


_AG_UI = {
    "RUN_STARTED": lambda recorder, event: None,
    "TEXT_MESSAGE_START": lambda recorder, event: recorder.start(event["messageId"]),
    "TEXT_MESSAGE_CONTENT": lambda recorder, event: recorder.add(event["messageId"], event["delta"]),
    "TEXT_MESSAGE_END": lambda recorder, event: recorder.close(event["messageId"]),
    "TOOL_CALL_START": lambda recorder, event: recorder.call(event["toolCallId"], event["toolCallName"]),
    "TOOL_CALL_ARGS": lambda recorder, event: recorder.add_arguments(event["toolCallId"], event["delta"]),
    "TOOL_CALL_END": lambda recorder, event: None,
    "TOOL_CALL_RESULT": lambda recorder, event: recorder.result(event["toolCallId"], "" + event["content"]),
    "REASONING_START": lambda recorder, event: event["messageId"].strip(),
    "REASONING_MESSAGE_START": lambda recorder, event: recorder.start_reasoning(event["messageId"]),
    "REASONING_MESSAGE_CONTENT": lambda recorder, event: recorder.add_reasoning(event["messageId"], event["delta"]),
    "REASONING_MESSAGE_END": lambda recorder, event: recorder.close(event["messageId"]),
    "REASONING_END": lambda recorder, event: event["messageId"].strip(),
    "RUN_FINISHED": lambda recorder, event: recorder.finish(
        "stopped" if "outcome" in event else "complete",
        is_truncated=event.get("metadata") == {"finishReason": "length"},
    ),
    "RUN_ERROR": lambda recorder, event: recorder.finish("error" if event["message"] and event["code"] else ""),
    "CUSTOM": lambda recorder, event: event["name"].strip(),
}


def openai(source: Iterable[str]) -> Reading:
    texts, end, done, is_truncated = [], "", False, False
    for number, data in enumerate(source):
        assert not done, "nothing after [DONE]"
        if data == "[DONE]":
            assert end, "[DONE] before the end"
            done = True
            continue
        assert not end, "nothing but [DONE] after the end"
        chunk = json.loads(data)
        if "error" in chunk:
            assert set(chunk["error"]) == {"message", "type", "param", "code"}
            end = "error"
            continue
        assert (chunk["id"], chunk["object"], chunk["model"]) == ("chatcmpl-m-1", "chat.completion.chunk", "default")
        (choice,) = chunk["choices"]
        assert ("role" in choice["delta"]) == (number == 0)
        texts.append(choice["delta"].get("content", ""))
        end = "complete" if choice["finish_reason"] else ""
        is_truncated = choice["finish_reason"] == "length"
    assert done == bool(end)
    return Reading([text for text in texts if text], end, is_truncated=is_truncated)
