"""One strict reader for each protocol: it asserts the order that the protocol's own clients want, and gives what was said.

What the official clients make of it is seen in tests/clients.
"""

import json
from collections.abc import Iterable
from typing import NamedTuple


class Reading(NamedTuple):
    texts: list[str]
    end: str
    """How it ended: complete, error, stopped; "" when it did not."""
    tools: list[tuple[str, object, object]] = []
    """Name, input and output of each call that has a result."""

    @property
    def text(self) -> str:
        return "".join(self.texts)


def native(said: Iterable[str]) -> Reading:
    texts, end = [], ""
    for content in map(json.loads, said):
        assert not end, "nothing after the end"
        if content["type"] == "progress" and isinstance(content.get("text"), str):
            texts.append(content["text"])
        elif content["type"] in {"complete", "error", "stopped"}:
            end = content["type"]
            if not texts and end != "error":
                texts = content["response"]["responses"]
    return Reading(texts, end)


class Heard:
    """What a reader has been told so far. A text or a call is begun once, and what goes on is what is open."""

    def __init__(self) -> None:
        self.end = ""
        self._texts: dict[str, str] = {}
        self._open = ""
        self._calls: dict[str, tuple[str, str]] = {}
        self._tools: list[tuple[str, object, object]] = []

    def begin(self, text_id: str) -> None:
        assert not self._open
        assert text_id not in self._texts
        self._open, self._texts[text_id] = text_id, ""

    def add(self, text_id: str, text: str) -> None:
        assert text_id == self._open
        assert text, "AG-UI's older clients refuse an empty one"
        self._texts[text_id] += text

    def close(self, text_id: str) -> None:
        assert text_id == self._open
        self._open = ""

    def call(self, call_id: str, name: str, arguments: str = "") -> None:
        assert not self._open
        self._calls[call_id] = (name, arguments)

    def argue(self, call_id: str, arguments: str) -> None:
        name, before = self._calls[call_id]
        self._calls[call_id] = (name, before + arguments)

    def result(self, call_id: str, output: object) -> None:
        name, arguments = self._calls[call_id]
        self._tools.append((name, json.loads(arguments), output))

    def finish(self, end: str) -> None:
        assert not self._open or end == "error"
        self.end = end

    def reading(self) -> Reading:
        return Reading(list(self._texts.values()), self.end, self._tools)


def ai_sdk(said: Iterable[str]) -> Reading:
    heard, done = Heard(), False
    for number, data in enumerate(said):
        assert not done, "nothing after [DONE]"
        done = data == "[DONE]"
        if not done:
            assert not heard.end, "nothing but [DONE] after the end"
            part = json.loads(data)
            assert (part["type"] == "start") == (number == 0)
            _AI_SDK.get(part["type"], _transient)(heard, part)
    assert done == bool(heard.end)
    return heard.reading()


def _transient(_: Heard, part: dict) -> None:
    assert part["type"].startswith("data-")
    assert part["transient"] is True


_AI_SDK = {
    "start": lambda heard, part: part["messageId"].index("m-1"),
    "text-start": lambda heard, part: heard.begin(part["id"]),
    "text-delta": lambda heard, part: heard.add(part["id"], part["delta"]),
    "text-end": lambda heard, part: heard.close(part["id"]),
    "tool-input-available": lambda heard, part: heard.call(part["toolCallId"], part["toolName"], json.dumps(part["input"])),
    "tool-output-available": lambda heard, part: heard.result(part["toolCallId"], part["output"]),
    "finish": lambda heard, part: heard.finish("complete"),
    "abort": lambda heard, part: heard.finish("stopped"),
    "error": lambda heard, part: heard.finish("error" if part["errorText"] else ""),
}


def ag_ui(said: Iterable[str]) -> Reading:
    heard = Heard()
    for number, event in enumerate(map(json.loads, said)):
        assert not heard.end, "nothing after the end"
        assert (event["type"] == "RUN_STARTED") == (number == 0)
        if event["type"] in {"RUN_STARTED", "RUN_FINISHED"}:
            assert (event["threadId"], event["runId"]) == ("thread-1", "run-1")
        _AG_UI[event["type"]](heard, event)
    return heard.reading()


_AG_UI = {
    "RUN_STARTED": lambda heard, event: None,
    "TEXT_MESSAGE_START": lambda heard, event: heard.begin(event["messageId"]),
    "TEXT_MESSAGE_CONTENT": lambda heard, event: heard.add(event["messageId"], event["delta"]),
    "TEXT_MESSAGE_END": lambda heard, event: heard.close(event["messageId"]),
    "TOOL_CALL_START": lambda heard, event: heard.call(event["toolCallId"], event["toolCallName"]),
    "TOOL_CALL_ARGS": lambda heard, event: heard.argue(event["toolCallId"], event["delta"]),
    "TOOL_CALL_END": lambda heard, event: None,
    "TOOL_CALL_RESULT": lambda heard, event: heard.result(event["toolCallId"], "" + event["content"]),
    "RUN_FINISHED": lambda heard, event: heard.finish("stopped" if "outcome" in event else "complete"),
    "RUN_ERROR": lambda heard, event: heard.finish("error" if event["message"] and event["code"] else ""),
    "CUSTOM": lambda heard, event: event["name"].strip(),
}


def openai(said: Iterable[str]) -> Reading:
    texts, end, done = [], "", False
    for number, data in enumerate(said):
        assert not done, "nothing after [DONE]"
        if data == "[DONE]":
            assert end, "an end before [DONE]"
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
        end = "complete" if choice["finish_reason"] == "stop" else ""
    assert done == bool(end)
    return Reading([text for text in texts if text], end)
