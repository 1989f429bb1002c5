"""The broker's stream of a log: long logs, and logs that disappear while they are read."""

from collections.abc import Iterable
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import EnvironBuilder

from bff.broker.app import build_broker
from bff.broker.queue.base import PAGE_EVENTS, Message, Queue
from bff.config.environment import load_settings
from bff.ops.redis import connect
from bff.ops.redis_keys import hash_user_id
from bff.upstream.message_ids import new_id
from tests.live import BROKER_KEY
from tests.redis_server import RedisServer

KEY = {"X-API-Key": BROKER_KEY}


def new_app(**environment: str) -> Flask:
    return build_broker(load_settings({"QUEUE_FILE": "off"} | environment, backend_only=True), BROKER_KEY)


def queue_of(app: Flask) -> Queue:
    queue: Queue = app.extensions["chat_bff"].queue
    return queue


def add_finished(queue: Queue, events: int, message_id: str = "m-1", **fields: bool) -> None:
    """Adds a message of Ada's whose reply has so many events."""
    queue.enqueue(Message(message_id, "ada", {}, **fields), None, "enqueue")
    claim = queue.claim(10)
    queue.append(claim, [("message", f'{{"number":{number}}}') for number in range(events)])
    queue.finish(claim, [])


def stream(client: FlaskClient, message_id: str = "m-1"):
    return client.get("/api/v1/stream", query_string={"user_id": "ada", "message_id": message_id}, headers=KEY)


def unread_stream(app: Flask) -> Iterable[bytes]:
    """A response that is not read yet; Flask's client would read the first piece at once."""
    builder = EnvironBuilder("/api/v1/stream", query_string={"user_id": "ada", "message_id": "m-1"}, headers=KEY)
    return app(builder.get_environ(), lambda *_: lambda _: None)


def test_a_long_log_is_sent_page_by_page():
    app = new_app()
    add_finished(queue_of(app), 3 * PAGE_EVENTS)

    pieces = list(stream(app.test_client()).response)

    assert b"".join(pieces).count(b"event: message") == 3 * PAGE_EVENTS
    assert all(piece.count(b"\n\n") <= PAGE_EVENTS for piece in pieces)


def test_a_number_that_json_does_not_have_is_refused():
    content = {
        "user_id": "ada",
        "org_id": "default",
        "message": "hello",
        "client_id": "web",
        "options": {"top_p": float("inf")},
    }

    response = new_app().test_client().post("/api/v1/message", json=content, headers=KEY)

    assert (response.status_code, response.json["code"]) == (400, "invalid_request")
    assert response.json["detail"] == "The body is not valid JSON."


def test_responses_without_content_have_no_content_type():
    app = new_app()
    add_finished(queue_of(app), 1)
    last = queue_of(app).read("ada", "m-1", "").events[-1].id

    options = app.test_client().options("/api/v1/stream", headers=KEY)
    ended = app.test_client().get("/api/v1/stream?user_id=ada&message_id=m-1", headers=KEY | {"Last-Event-ID": last})

    assert [(response.status_code, response.content_type) for response in (options, ended)] == [(200, None), (204, None)]


def test_a_log_dropped_between_two_pages_ends_the_stream_and_is_expired_on_reconnect(caplog):
    app = new_app(LOG_MAX_BYTES="300000")
    add_finished(queue_of(app), PAGE_EVENTS + 100)
    pieces = iter(stream(app.test_client()).response)
    assert b'"number":0' in next(pieces)

    add_finished(queue_of(app), PAGE_EVENTS + 100, "m-2")

    assert b"done" not in b"".join(pieces)
    assert "a stream broke" not in caplog.text
    assert stream(app.test_client()).status_code == 410
    assert stream(app.test_client(), "m-3").status_code == 404


@pytest.mark.servers
def test_a_redis_outage_before_the_first_page_ends_the_stream(tmp_path, caplog):
    with RedisServer(tmp_path) as server:
        app = new_app(REDIS_URL=server.url, RUN_WORKER="0")
        queue = queue_of(app)
        add_finished(queue, 5, cancel_on_disconnect=True)
        pieces = unread_stream(app)

    assert list(pieces) == []

    assert "a stream broke" not in caplog.text
    assert stream(app.test_client()).status_code == 503
    queue.close()


def test_a_log_deleted_in_redis_ends_the_stream(clean_redis, caplog):
    app = new_app(REDIS_URL=clean_redis.url, RUN_WORKER="0")
    add_finished(queue_of(app), PAGE_EVENTS + 100)
    pieces = iter(stream(app.test_client()).response)
    assert b'"number":0' in next(pieces)

    with connect(clean_redis.url) as client:
        client.delete(f"chat:{{{hash_user_id('ada')}}}:l:m-1")

    assert list(pieces) == []
    assert "a stream broke" not in caplog.text
    assert stream(app.test_client()).status_code == 410
    queue_of(app).close()


def test_the_queues_entries_have_the_chat_ids_of_their_messages():
    client = new_app(ECHO_WORD_SECONDS="30").test_client()
    headers, content = {"X-API-Key": BROKER_KEY}, {"user_id": "ann", "org_id": "org", "client_id": "web", "message": "one two"}
    run = {"run_scope": "talk", "run_key": "key"}
    for extra in ({"chat_id": "chat-1"}, {}, run | {"chat_id": "chat-2"}):
        assert client.post("/api/v1/message", json=content | extra, headers=headers).status_code == 200

    entries = client.get("/api/v1/queue/ann", headers=headers).json["messages"]

    assert [entry["chat_id"] for entry in entries] == ["chat-1", "", ""]
    assert client.post("/api/v1/message", json=content | {"chat_id": "x" * 257}, headers=headers).status_code == 400


def test_a_message_has_the_uuid_that_its_sender_chose():
    client, uuid = new_app().test_client(), "0f3a8a62-5f3f-4b4e-9d6c-2f4a7f1f9b11"
    content = {"user_id": "ada", "org_id": "home", "client_id": "web", "message": "hi", "message_uuid": uuid}

    created = client.post("/api/v1/message", json=content | {"client_message_id": "c"}, headers=KEY)
    again = client.post("/api/v1/message", json=content | {"client_message_id": "c"}, headers=KEY)
    without_key = client.post("/api/v1/message", json=content, headers=KEY)

    assert created.json["message_id"] == new_id("home", "ada", first=UUID(uuid)) == again.json["message_id"]
    assert without_key.status_code == 400
