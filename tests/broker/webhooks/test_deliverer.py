"""Webhooks of the bundled broker, sent to receivers that answer, fail, hang, trickle, redirect, flood and reset."""

import json
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from flask import Flask
from standardwebhooks import Webhook

from bff.broker.app import build_broker
from bff.config.environment import load_settings
from tests.connect_proxy import ConnectProxy
from tests.listener import Listener
from tests.live import BASE_ENVIRONMENT, BROKER_KEY, DEADLINE, create_tables, eventually
from tests.wire_server import CUT, HANG, Request, WireServer, reply

KEY = {"X-API-Key": BROKER_KEY}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
OK = [reply(b"", "204 No Content")]


def new_app(*origins: str, **environment: str) -> Flask:
    settings = BASE_ENVIRONMENT | {
        "ECHO_WORD_SECONDS": "0",
        "WEBHOOK_SECRET": SECRET,
        "WEBHOOK_ALLOW_ORIGINS": ",".join(origins),
        "WEBHOOK_RETRY_SECONDS": "0.05,0.05,0.05",
        "WEBHOOK_SECONDS": "1",
    }
    create_tables(settings["DATABASE_URL"])
    return build_broker(load_settings(settings | environment, backend_only=True), BROKER_KEY)


def send(app: Flask, text: str = "hello there", user_id: str = "ann", **more: Any) -> str:
    content = {"user_id": user_id, "org_id": "home", "client_id": "web", "message": text} | more
    response = app.test_client().post("/api/v1/message", json=content, headers=KEY)
    assert response.status_code == 200, response.text
    return str(response.json["message_id"])


def deliveries(app: Flask) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = app.test_client().get("/api/v1/webhooks", headers=KEY).json["webhooks"]
    return entries


@pytest.fixture
def receiver() -> Iterator[WireServer]:
    with WireServer(OK) as server:
        yield server


def body_of(request: Request, secret: str = SECRET) -> dict[str, Any]:
    """The verified body."""
    body: dict[str, Any] = Webhook(secret).verify(request.body, request.headers)
    return body


def test_a_completed_message_is_delivered_to_its_callback_url(receiver, caplog):
    app = new_app(receiver.url)

    with caplog.at_level(logging.INFO):
        message_id = send(app, client_message_id="c-1", callback_url=f"{receiver.url}/hook?token=t")
        assert receiver.wait_for(lambda: receiver.requests, DEADLINE)
        assert eventually(lambda: "delivered" in caplog.text, DEADLINE)

    (request,) = receiver.requests
    assert (request.method, request.path) == ("POST", "/hook?token=t")
    body = body_of(request)
    assert body["type"] == "message.completed"
    response = body["data"].pop("response")
    assert response["responses"] == ["hello there"]
    assert body["data"] == {"message_id": message_id, "user_id": "ann", "org_id": "home", "client_message_id": "c-1"}
    assert deliveries(app) == []
    assert f"webhook of message {message_id} to {receiver.url}: delivered" in caplog.text
    assert "token=t" not in caplog.text


def test_every_message_is_delivered_to_the_webhook_url(receiver):
    app = new_app(receiver.url, WEBHOOK_URL=f"{receiver.url}/all")

    ids = [send(app, callback_url=f"{receiver.url}/one"), send(app)]

    assert receiver.wait_for(lambda: len(receiver.requests) == 3, DEADLINE)
    sent = {(request.path, body_of(request)["data"]["message_id"]) for request in receiver.requests}
    assert sent == {("/all", ids[0]), ("/one", ids[0]), ("/all", ids[1])}
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 3


def test_stopped_messages_are_delivered(receiver):
    app = new_app(receiver.url, WEBHOOK_URL=receiver.url, ECHO_WORD_SECONDS="30")
    running, waiting = send(app, "one two"), send(app, "three")

    for message_id in (waiting, running):
        app.test_client().delete(f"/api/v1/message/{message_id}?user_id=ann", headers=KEY)

    assert receiver.wait_for(lambda: len(receiver.requests) == 2, DEADLINE)
    bodies = [body_of(request) for request in receiver.requests]
    assert {body["type"] for body in bodies} == {"message.stopped"}
    assert {body["data"]["message_id"] for body in bodies} == {waiting, running}


def test_a_failed_message_is_delivered(receiver):
    app = new_app(receiver.url, WEBHOOK_URL=receiver.url, ENGINE_BASE_URL="http://127.0.0.1:1", ENGINE_API_KEY="k" * 32)

    send(app)

    assert receiver.wait_for(lambda: receiver.requests, DEADLINE)
    body = body_of(receiver.requests[0])
    assert body["type"] == "message.failed"
    message = "The assistant cannot be reached. Please try again in a moment."
    assert body["data"]["error"] == {"code": "upstream_unavailable", "message": message}


FLOOD = [b"HTTP/1.1 500 Oops\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 10_000_000]
ENDLESS_HEAD = [b"HTTP/1.1 200 OK\r\n", *[b"X-Field: x\r\n", 0.1] * 30]
FAILURES = {
    "a failure": ([reply(b"", "500 Oops")], "the response was 500"),
    "a redirect": ([reply(b"", "302 Found", Location="http://localhost/")], "the response was 302"),
    "a reset": ([CUT], "POST failed: ConnectionError"),
    "silence": ([HANG], "no response in time"),
    "a trickling head": (ENDLESS_HEAD, "no response in time"),
    "a flood": (FLOOD, "the response was 500"),
    "garbage": ([b"garbage\r\n\r\n"], "POST failed: ConnectionError"),
}


@pytest.mark.parametrize(("failure", "error"), FAILURES.values(), ids=FAILURES)
def test_a_failed_try_is_repeated_with_the_same_id(failure, error, caplog):
    with WireServer(failure, OK) as receiver:
        app = new_app(receiver.url)

        with caplog.at_level(logging.INFO):
            send(app, callback_url=receiver.url)
            assert receiver.wait_for(lambda: len(receiver.requests) == 2, DEADLINE)
            assert eventually(lambda: not deliveries(app), DEADLINE)

    first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    body_of(second)
    assert f": {error}, to be tried again" in caplog.text


def test_a_flood_after_success_is_not_read(receiver):
    flood = [b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n", *[b"x" * 100_000] * 100]
    with WireServer(flood, OK) as receiver:
        app = new_app(receiver.url)

        send(app, callback_url=receiver.url)

        assert receiver.wait_for(lambda: receiver.requests, DEADLINE)
        assert eventually(lambda: not deliveries(app), DEADLINE)
        assert len(receiver.requests) == 1


def test_gone_ends_the_tries():
    with WireServer([reply(b"", "410 Gone")]) as receiver:
        app = new_app(receiver.url)

        send(app, callback_url=receiver.url)

        assert receiver.wait_for(lambda: receiver.requests, DEADLINE)
        assert eventually(lambda: not deliveries(app), DEADLINE)
        assert len(receiver.requests) == 1


def test_a_delivery_that_always_fails_is_listed_and_can_be_sent_again():
    answers = [[reply(b"", "503 Away")]] * 4
    with WireServer(*answers, OK) as receiver:
        app = new_app(receiver.url)
        message_id = send(app, callback_url=f"{receiver.url}/secret-path")
        assert eventually(lambda: [entry["state"] for entry in deliveries(app)] == ["failed"], DEADLINE)

        (entry,) = deliveries(app)
        assert (entry["message_id"], entry["tries"], entry["url"]) == (message_id, 4, receiver.url)
        assert entry["error"] == "the response was 503"
        assert app.test_client().post(f"/api/v1/webhooks/{entry['id']}/send", headers=KEY).status_code == 202

        assert receiver.wait_for(lambda: len(receiver.requests) == 5, DEADLINE)
        assert eventually(lambda: not deliveries(app), DEADLINE)
        assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
        for unknown in ("0" * 72, "x"):
            assert app.test_client().post(f"/api/v1/webhooks/{unknown}/send", headers=KEY).status_code == 404


def test_a_dead_receiver_delays_nobody(receiver):
    with WireServer([HANG]) as dead:
        app = new_app(dead.url, receiver.url, WEBHOOK_SECONDS="20")
        for number in range(40):
            send(app, user_id=f"user-{number}", callback_url=dead.url)
        assert dead.wait_for(lambda: len(dead.requests) == 8, DEADLINE)

        for number in range(20):
            send(app, user_id=f"user-{number}", callback_url=receiver.url)

        assert receiver.wait_for(lambda: len(receiver.requests) == 20, DEADLINE / 2)
        assert len(dead.requests) == 8


def test_messages_of_a_user_are_delivered_in_order(receiver):
    app = new_app(receiver.url)

    ids = [send(app, f"text {number}", callback_url=receiver.url) for number in range(10)]

    assert receiver.wait_for(lambda: len(receiver.requests) == 10, DEADLINE)
    assert [body_of(request)["data"]["message_id"] for request in receiver.requests] == ids


def test_both_secrets_sign_while_one_is_replaced(receiver):
    app = new_app(receiver.url, WEBHOOK_SECRET=f"{SECRET} {OTHER_SECRET}")

    send(app, callback_url=receiver.url)

    assert receiver.wait_for(lambda: receiver.requests, DEADLINE)
    assert body_of(receiver.requests[0], SECRET) == body_of(receiver.requests[0], OTHER_SECRET)


REFUSED = {
    "http://8.8.8.8/": "must begin with https://",
    "ftp://8.8.8.8/": "must begin with https://",
    "https://10.0.0.1/": "is in a private network",
    "https://localhost/": "is in a private network",
    "https://user:pass@8.8.8.8/": "must have a host",
    "https:///path": "must have a host",
    "hook": "must have a host",
    "https://[1/": "is not a URL",
}


@pytest.mark.parametrize(("url", "reason"), REFUSED.items(), ids=REFUSED)
def test_a_forbidden_callback_url_is_refused(url, reason):
    content = {"user_id": "ann", "org_id": "home", "client_id": "web", "message": "hi", "callback_url": url}

    response = new_app().test_client().post("/api/v1/message", json=content, headers=KEY)

    assert response.status_code == 400
    assert reason in response.json["detail"]


def test_a_callback_url_needs_a_secret():
    content = {"user_id": "ann", "org_id": "home", "client_id": "web", "message": "hi", "callback_url": "https://8.8.8.8/"}

    response = new_app(WEBHOOK_SECRET="").test_client().post("/api/v1/message", json=content, headers=KEY)

    assert (response.status_code, response.json["code"]) == (400, "invalid_request")


def test_an_address_that_turns_private_is_not_called(receiver, monkeypatch):
    """DNS rebinding: the name is public when it is checked, and private when the connection is made."""
    port = int(receiver.url.rpartition(":")[2])
    answers = {"public": "8.8.8.8"}
    resolve = socket.getaddrinfo

    def rebinding(host: Any, *args: Any, **more: Any) -> Any:
        return resolve(answers["public"] if host == "rebinding.example" else host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    app = new_app(WEBHOOK_RETRY_SECONDS="0")
    content = {"user_id": "ann", "org_id": "home", "client_id": "web", "message": "hi"}
    worker = app.extensions["chat_bff"].worker
    start, worker.start = worker.start, lambda: None

    url = f"https://rebinding.example:{port}/"
    response = app.test_client().post("/api/v1/message", json=content | {"callback_url": url}, headers=KEY)
    assert response.status_code == 200
    answers["public"] = "127.0.0.1"
    start()

    assert eventually(lambda: [entry["state"] for entry in deliveries(app)] == ["failed"], DEADLINE)
    assert deliveries(app)[0]["error"] == "POST failed: rebinding.example is in a private network"
    assert receiver.requests == []


def test_the_body_is_the_same_text_that_is_signed(receiver):
    app = new_app(receiver.url)

    send(app, "ünï 😀", callback_url=receiver.url)

    assert receiver.wait_for(lambda: receiver.requests, DEADLINE)
    assert body_of(receiver.requests[0]) == json.loads(receiver.requests[0].body)


# TLS and proxies.


@pytest.fixture
def secure_receiver(authority) -> Iterator[WireServer]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    with WireServer(OK, tls=tls) as server:
        yield server


def test_a_receiver_with_a_private_authority_is_trusted_with_ca_file(secure_receiver, ca_file):
    app = new_app(secure_receiver.url, CA_FILE=ca_file)

    send(app, callback_url=secure_receiver.url)

    assert secure_receiver.wait_for(lambda: secure_receiver.requests, DEADLINE)
    body_of(secure_receiver.requests[0])


def test_an_unknown_authority_is_named(secure_receiver):
    app = new_app(secure_receiver.url, WEBHOOK_RETRY_SECONDS="0")

    send(app, callback_url=secure_receiver.url)

    assert eventually(lambda: [entry["state"] for entry in deliveries(app)] == ["failed"], DEADLINE)
    assert "the certificate is not trusted" in deliveries(app)[0]["error"]
    assert secure_receiver.requests == []


class TricklingHandshake(Listener):
    """Sends the beginning of a TLS record byte by byte."""

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            client.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xf0")
            while True:
                client.sendall(b"\x00")
                time.sleep(0.1)


def test_a_trickling_handshake_ends_in_time():
    with TricklingHandshake() as receiver:
        url = receiver.url.replace("http:", "https:")
        app = new_app(url, WEBHOOK_RETRY_SECONDS="0")
        started_at = time.monotonic()

        send(app, callback_url=url)

        assert eventually(lambda: [entry["state"] for entry in deliveries(app)] == ["failed"], DEADLINE)
        assert time.monotonic() - started_at < DEADLINE / 2


def test_webhooks_go_through_the_proxy(secure_receiver, ca_file):
    with ConnectProxy() as proxy:
        app = new_app(secure_receiver.url, CA_FILE=ca_file, HTTPS_PROXY=proxy.url)

        send(app, callback_url=secure_receiver.url)

        assert secure_receiver.wait_for(lambda: secure_receiver.requests, DEADLINE)
        assert [tunnel.target for tunnel in proxy.tunnels] == [secure_receiver.url.removeprefix("https://")]


def test_no_tunnel_to_a_private_address_is_opened(secure_receiver, ca_file, monkeypatch):
    """A name that turned private since the message was enqueued, behind a proxy that would resolve it."""
    port, resolve, answers = secure_receiver.url.rpartition(":")[2], socket.getaddrinfo, ["8.8.8.8"]

    def rebinding(host: Any, *args: Any, **more: Any) -> Any:
        return resolve(answers[-1] if host == "rebinding.example" else host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with ConnectProxy() as proxy:
        app = new_app(CA_FILE=ca_file, HTTPS_PROXY=proxy.url, WEBHOOK_RETRY_SECONDS="0", ECHO_WORD_SECONDS="0.2")
        send(app, callback_url=f"https://rebinding.example:{port}/")
        answers.append("127.0.0.1")

        assert eventually(lambda: [entry["state"] for entry in deliveries(app)] == ["failed"], DEADLINE)
        assert deliveries(app)[0]["error"] == "POST failed: rebinding.example is in a private network"
        assert proxy.tunnels == []
