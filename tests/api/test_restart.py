"""What readers make of our own queue's log when it says `restart`. The test is the worker that writes it."""

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
from tests.broker.queue.queues import claimed
from tests.live import ADA, eventually

REPLY = str(uuid.uuid4())
OPENAI = {"model": "echo", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
UI_MESSAGES = {"messages": [{"id": "u-1", "role": "user", "parts": [{"type": "text", "text": "hello"}]}]}


class Worked(NamedTuple):
    browser: FlaskClient
    queue: RedisQueue

    def post(self, path: str, content: object):
        return self.browser.post(path, json=content, headers=ADA)

    def get(self, path: str, **headers: str):
        return self.browser.get(path, headers=ADA | {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.fixture
def worked(clean_redis) -> Iterator[Worked]:
    queue = RedisQueue(connect(clean_redis.url))
    yield Worked(client(REDIS_URL=clean_redis.url, RUN_WORKER="0"), queue)
    queue.close()


def told(kind: str, **content: object) -> LogEntry:
    return "message", json.dumps({"type": kind} | content)


HALF, RESTART, ANEW = told("progress", text="Half "), told("restart"), told("progress", text="whole")
COMPLETE = told("complete", response=response(["whole"]) | {"message_id": REPLY})


def begin(queue: RedisQueue, *before: LogEntry) -> Claim:
    claim = claimed(queue)
    queue.append(claim, [*before, RESTART])
    return claim


def answer(queue: RedisQueue, *before: LogEntry) -> None:
    queue.finish(begin(queue, *before), [("processing", ""), ANEW, COMPLETE])


def fields(body: str, name: str) -> list[str]:
    return [line.partition(": ")[2] for line in body.splitlines() if line.startswith(f"{name}: ")]


def types(body: str) -> list[str]:
    return [json.loads(data)["type"] for data in fields(body, "data") if data != "[DONE]"]


def test_our_own_words_say_it_with_an_id_to_every_reader(worked):
    said = worked.post("/api/chat/stream", {"message": "hello"})
    answer(worked.queue, HALF)
    body = said.get_data(as_text=True)
    follow = said.headers["Location"]

    assert types(body)[-5:] == ["progress", "restart", "status", "progress", "complete"]
    ids = fields(body, "id")
    assert ids == sorted(ids)
    assert types(worked.get(follow).get_data(as_text=True)) == types(body)
    rest = worked.get(follow, Last_Event_ID=ids[-5]).get_data(as_text=True)
    assert types(rest) == ["restart", "status", "progress", "complete"]


def test_a_conversations_reader_is_told_where_it_was(worked):
    room = worked.post("/api/conversations", {}).json["id"]
    worked.post(f"/api/conversations/{room}/messages", {"content": "hello"})
    stream = worked.get(f"/api/conversations/{room}/stream")
    answer(worked.queue, HALF)
    body = stream.get_data(as_text=True)

    assert fields(body, "event") == ["token", "restart", "token", "done"]
    assert [json.loads(data) for data in fields(body, "data")] == [
        {"token": "Half "},
        {},
        {"token": "whole"},
        {"messageId": REPLY},
    ]
    assert len(fields(body, "id")) == 4


@pytest.mark.parametrize("before", [(HALF,), (told("tool_use", tool="t"),)], ids=["text", "a tool"])
def test_readers_of_a_protocol_are_told_one_end_whenever_they_come(worked, before):
    said = worked.post("/api/chat/stream?protocol=ai-sdk", UI_MESSAGES)
    answer(worked.queue, *before)
    live = said.get_data(as_text=True)
    follow = f"{said.headers['Location']}?protocol=ai-sdk"
    ids = fields(live, "id")

    assert ids[-1].endswith(";end")
    assert '"code":"interrupted"' in live
    assert "whole" not in live
    assert types(worked.get(follow).get_data(as_text=True)) == types(live)
    for seen in ids[:-1]:
        rest = worked.get(follow, Last_Event_ID=seen).get_data(as_text=True)
        assert types(rest)[-2:] == types(live)[-2:]
        assert "whole" not in rest
    assert worked.get(follow, Last_Event_ID=ids[-1]).status_code == 204


def test_a_protocol_whose_reader_was_told_nothing_goes_on(worked):
    said = worked.post("/api/chat/stream?protocol=ai-sdk", UI_MESSAGES)
    answer(worked.queue, told("status", message="Thinking"))

    assert types(said.get_data(as_text=True))[-5:] == ["text-start", "text-delta", "text-end", "data-response", "finish"]


def test_an_answer_that_nobody_can_be_told_any_more_is_stopped_at_once(worked):
    said = worked.post("/v1/chat/completions", OPENAI)
    claim = begin(worked.queue, HALF)

    assert fields(said.get_data(as_text=True), "data")[-1] == "[DONE]"
    said.close()
    assert eventually(lambda: worked.queue.renew(claim) == "unread", Limits().grace / 2)
