"""A reply that restarts, as its readers see it. The test takes the place of the worker and writes the log itself."""

import json
import uuid
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from flask.testing import FlaskClient

from bff.broker.queue.base import Claim, Limits, LogEntry
from bff.broker.queue.redis import RedisQueue
from bff.ops.redis import connect
from bff.upstream.events import response
from tests.api.chat_requests import client
from tests.broker.queue.queues import claim_next
from tests.live import ADA, eventually

REPLY = str(uuid.uuid4())
OPENAI = {"model": "echo", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
UI_MESSAGES = {"messages": [{"id": "u-1", "role": "user", "parts": [{"type": "text", "text": "hello"}]}]}


class OwnWorker(NamedTuple):
    browser: FlaskClient
    queue: RedisQueue

    def post(self, path: str, content: object):
        return self.browser.post(path, json=content, headers=ADA)

    def get(self, path: str, **headers: str):
        return self.browser.get(path, headers=ADA | {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.fixture
def app(clean_redis) -> Iterator[OwnWorker]:
    queue = RedisQueue(connect(clean_redis.url))
    yield OwnWorker(client(REDIS_URL=clean_redis.url, RUN_WORKER="0"), queue)
    queue.close()


def entry(kind: str, **content: object) -> LogEntry:
    return "message", json.dumps({"type": kind} | content)


HALF, RESTART, AGAIN = entry("progress", text="Half "), entry("restart"), entry("progress", text="whole")
COMPLETE = entry("complete", response=response(["whole"]) | {"message_id": REPLY})


def restart(queue: RedisQueue, *before: LogEntry) -> Claim:
    claim = claim_next(queue)
    queue.append(claim, [*before, RESTART])
    return claim


def finish_reply(queue: RedisQueue, *before: LogEntry) -> None:
    queue.finish(restart(queue, *before), [("processing", ""), AGAIN, COMPLETE])


def fields(body: str, name: str) -> list[str]:
    return [line.partition(": ")[2] for line in body.splitlines() if line.startswith(f"{name}: ")]


def types(body: str) -> list[str]:
    return [json.loads(data)["type"] for data in fields(body, "data") if data != "[DONE]"]


def test_native_readers_get_a_restart_event_with_an_id(app):
    streamed = app.post("/api/chat/stream", {"message": "hello"})
    finish_reply(app.queue, HALF)
    body = streamed.get_data(as_text=True)
    follow = streamed.headers["Location"]

    assert types(body)[-5:] == ["progress", "restart", "status", "progress", "complete"]
    ids = fields(body, "id")
    assert ids == sorted(ids)
    assert types(app.get(follow).get_data(as_text=True)) == types(body)
    rest = app.get(follow, Last_Event_ID=ids[-5]).get_data(as_text=True)
    assert types(rest) == ["restart", "status", "progress", "complete"]


def test_conversation_readers_get_a_restart_event_in_order(app):
    conversation_id = app.post("/api/conversations", {}).json["id"]
    app.post(f"/api/conversations/{conversation_id}/messages", {"content": "hello"})
    stream = app.get(f"/api/conversations/{conversation_id}/stream")
    finish_reply(app.queue, HALF)
    body = stream.get_data(as_text=True)

    assert fields(body, "event") == ["token", "restart", "token", "done"]
    assert [json.loads(data) for data in fields(body, "data")] == [
        {"token": "Half "},
        {},
        {"token": "whole"},
        {"messageId": REPLY},
    ]
    assert len(fields(body, "id")) == 4


@pytest.mark.parametrize("before", [(HALF,), (entry("tool_use", tool="t"),)], ids=["text", "a tool"])
def test_other_protocols_end_alike_live_and_resumed(app, before):
    streamed = app.post("/api/chat/stream?protocol=ai-sdk", UI_MESSAGES)
    finish_reply(app.queue, *before)
    live = streamed.get_data(as_text=True)
    follow = f"{streamed.headers['Location']}?protocol=ai-sdk"
    ids = fields(live, "id")

    assert ids[-1].endswith(";end")
    assert '"code":"interrupted"' in live
    assert "whole" not in live
    assert types(app.get(follow).get_data(as_text=True)) == types(live)
    for event_id in ids[:-1]:
        rest = app.get(follow, Last_Event_ID=event_id).get_data(as_text=True)
        assert types(rest)[-2:] == types(live)[-2:]
        assert "whole" not in rest
    assert app.get(follow, Last_Event_ID=ids[-1]).status_code == 204


def test_other_protocols_continue_if_nothing_was_sent(app):
    streamed = app.post("/api/chat/stream?protocol=ai-sdk", UI_MESSAGES)
    finish_reply(app.queue, entry("status", message="Thinking"))

    assert types(streamed.get_data(as_text=True))[-5:] == ["text-start", "text-delta", "text-end", "data-response", "finish"]


def test_an_unread_reply_is_cancelled_at_once(app):
    streamed = app.post("/v1/chat/completions", OPENAI)
    claim = restart(app.queue, HALF)

    assert fields(streamed.get_data(as_text=True), "data")[-1] == "[DONE]"
    streamed.close()
    assert eventually(lambda: app.queue.renew(claim) == "unread", Limits().grace / 2)
