"""What model servers really send (tests/cases/providers.json), as each client sees it: the same at every door."""

import json
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest

from tests.engine.agents.openai_server import settings_of
from tests.engine.agents.providers import CASES, body_of, cuts, expected, name, steps_of
from tests.live import new_app, who
from tests.wire_server import WireServer

AGENT = "openai"


class Door:
    """A way to ask the model. Each call is another user's first message."""

    def __init__(self, app: Any) -> None:
        self._client = app.test_client()
        self._user = uuid4().hex

    def post(self, path: str, body: Any) -> Any:
        return self._client.post(path, json=body, headers=who(self._user))

    def get(self, path: str) -> Any:
        return self._client.get(path, headers=who(self._user))

    def history(self) -> list[str]:
        return [entry["assistant_response"] for entry in self.get("/api/chat/history").json["entries"]]


def frames(response: Any) -> list[tuple[str, Any]]:
    """Name and data of each event. The stream must be whole."""
    body = response.get_data(as_text=True)
    assert body.endswith("\n\n")
    found = []
    for frame in body.removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in frame.split("\n") if not line.startswith(":"))
        if "data" in fields:
            found.append((fields.get("event", ""), fields["data"]))
    return found


Result = tuple[str, str, str]
"""Text, end and code."""


END_OF_REASON = {"stop": "complete", "length": "length"}


def native(door: Door) -> Result:
    contents = [json.loads(data) for _, data in frames(door.post("/api/chat/stream", {"message": "Hi"}))]
    assert [content["type"] in {"complete", "error", "stopped"} for content in contents].index(True) == len(contents) - 1
    text = "".join(content["text"] for content in contents if content["type"] == "progress")
    last = contents[-1]
    if last["type"] == "error":
        assert door.history() == []
        return text, "error", last["code"]
    assert last["response"]["responses"] == [text]
    assert door.history() == [text]
    return text, "length" if last["response"].get("truncated") else "complete", ""


def whole(door: Door) -> Result:
    response = door.post("/api/chat", {"message": "Hi"})
    if response.status_code != 200:
        assert door.history() == []
        return "", "error", response.json["code"]
    (text,) = response.json["responses"]
    return text, "length" if response.json.get("truncated") else "complete", ""


def conversation(door: Door) -> Result:
    conversation_id = door.post("/api/conversations", {}).json["id"]
    path = f"/api/conversations/{conversation_id}"
    door.post(f"{path}/messages", {"content": "Hi"})
    events = [(event, json.loads(data)) for event, data in frames(door.get(f"{path}/stream?agentId={AGENT}"))]
    assert [event in {"done", "failure", "stopped"} for event, _ in events].index(True) == len(events) - 1
    text = "".join(data["token"] for event, data in events if event == "token")
    stored = [message["content"] for message in door.get(f"{path}/messages").json["messages"] if message["role"] == "assistant"]
    event, data = events[-1]
    assert stored == ([text] if event == "done" else [])
    if event == "failure":
        return text, "error", data["code"]
    return text, "length" if data.get("truncated") else "complete", ""


def openai(door: Door) -> Result:
    """Streamed."""
    request = {"model": AGENT, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    *chunks, last = [data for _, data in frames(door.post("/v1/chat/completions", request))]
    assert last == "[DONE]"
    contents = [json.loads(chunk) for chunk in chunks]
    choices = [choice for content in contents for choice in content.get("choices", [])]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    errors = [content["error"]["code"] for content in contents if "error" in content]
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert len(errors) + len(reasons) == 1
    return (text, "error", errors[0]) if errors else (text, END_OF_REASON[reasons[0]], "")


def openai_whole(door: Door) -> Result:
    response = door.post("/v1/chat/completions", {"model": AGENT, "messages": [{"role": "user", "content": "Hi"}]})
    if response.status_code != 200:
        return "", "error", response.json["error"]["code"]
    (choice,) = response.json["choices"]
    return choice["message"]["content"], END_OF_REASON[choice["finish_reason"]], ""


def ai_sdk(door: Door) -> Result:
    request = {"id": "1", "messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}]}
    *chunks, last = [data for _, data in frames(door.post("/api/chat/stream?protocol=ai-sdk", request))]
    assert last == "[DONE]"
    parts = [json.loads(chunk) for chunk in chunks]
    text = "".join(part["delta"] for part in parts if part["type"] == "text-delta")
    codes = [part["data"]["code"] for part in parts if part["type"] == "data-error"]
    (end,) = [part for part in parts if part["type"] in {"finish", "error", "abort"}]
    assert end["type"] == ("error" if codes else "finish")
    return (text, "error", codes[0]) if codes else (text, END_OF_REASON[end.get("finishReason", "stop")], "")


def ag_ui(door: Door) -> Result:
    request = {"threadId": "t", "runId": uuid4().hex, "messages": [{"id": "1", "role": "user", "content": "Hi"}]}
    events = [json.loads(data) for _, data in frames(door.post("/api/chat/stream?protocol=ag-ui", request))]
    text = "".join(event["delta"] for event in events if event["type"] == "TEXT_MESSAGE_CONTENT")
    last = events[-1]
    assert [event["type"] for event in events if event["type"] in {"RUN_FINISHED", "RUN_ERROR"}] == [last["type"]]
    if last["type"] == "RUN_ERROR":
        return text, "error", last["code"]
    return text, END_OF_REASON[last.get("metadata", {}).get("finishReason", "stop")], ""


DOORS = (native, whole, conversation, openai, openai_whole, ai_sdk, ag_ui)
STREAMED = {native, conversation, openai, ai_sdk, ag_ui}


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """`ask(door, steps)`: what a client gets if the model's server replies with `steps`."""
    steps: list[Any] = []
    with WireServer(lambda _: steps) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr("bff.engine.agents.openai.completion.FINISH_SECONDS", 0.3)
        app = new_app(
            DATABASE_URL=f"sqlite:///{tmp_path_factory.mktemp('data')}/chat.db",
            MESSAGES_PER_MINUTE="10000",
            **settings_of(server),
        )

        def ask_door(door: Any, reply: list[Any]) -> Result:
            steps[:] = reply
            return door(Door(app))

        yield ask_door


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
@pytest.mark.parametrize("case", CASES, ids=name)
def test_a_case_has_the_same_outcome_at_every_door(ask, case, door):
    begun = monotonic()
    text, end, code = ask(door, steps_of(case))

    expected_text, expected_end = expected(case)
    assert end == expected_end
    assert text == (expected_text if end != "error" or door in STREAMED else "")
    assert code == case["expect"].get("code", code)
    assert monotonic() - begun < case.get("within_seconds", 15)


@pytest.mark.parametrize("case", [case for case in CASES if case["end"] == "clean"], ids=name)
def test_a_case_has_the_same_outcome_in_single_bytes(ask, case):
    whole_body = ask(native, steps_of(case))

    assert ask(native, steps_of(case, next(cuts(b"".join(body_of(case)), case["name"])))) == whole_body


def test_the_sentence_for_a_too_long_context_is_its_own(ask):
    by_name = {case["name"]: case for case in CASES}

    assert ask(native, steps_of(by_name["context too long"]))[2] == "context_too_long"
    assert ask(native, steps_of(by_name["bad key"]))[2] == "upstream_error"
