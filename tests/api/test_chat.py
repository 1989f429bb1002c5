import json
import re
import socket
from itertools import pairwise
from time import monotonic

import pytest

from tests.api.chat_requests import client, client_of
from tests.broker_responses import RECEIPT, REPLY
from tests.live import ADA, BROKER_KEY, Browser, eventually, head, in_parallel, text_of
from tests.original_broker import OriginalBroker
from tests.wire_server import CUT, END, HANG, LAST_CHUNK, NUMBERED, UNNUMBERED, WireServer, chunk, reply, stream_head

QUEUED = [stream_head(), chunk(b"event: queued\ndata: {}\n\n")]
"""Without an id, as from a broker that does not number its events."""


def order(event: dict) -> tuple[int, ...]:
    return tuple(int(part) for part in event["id"].split("-"))


def post_message(browser, body=b'{"message":"hello"}', **headers: str):
    fields = {"Content-Type": "application/json", **ADA, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return browser.post("/api/chat/stream", data=body, headers=fields)


def contents(response) -> list[dict]:
    return [json.loads(line[6:]) for line in response.get_data(as_text=True).splitlines() if line.startswith("data: ")]


# One reply


def test_a_reply_is_streamed_as_native_events():
    response = post_message(client())

    events = contents(response)
    assert response.status_code == 200
    assert [event["type"] for event in events] == ["status", "status", "progress", "complete"]
    assert [event["message"] for event in events[:2]] == ["Message queued...", "Processing..."]
    assert events[-1]["response"]["responses"] == ["hello"]


def test_a_stream_has_headers_for_clients_and_proxies():
    response = post_message(client(), X_Request_ID="my-own.id_1")

    message_id = response.headers["X-Message-ID"]
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store, no-transform"
    assert response.headers["X-Accel-Buffering"] == "no"
    assert response.headers["Location"] == f"/api/chat/stream/{message_id}"
    assert response.headers["X-Request-ID"] == "my-own.id_1"


@pytest.mark.parametrize("on_disconnect", ["continue", "cancel"])
def test_a_stream_says_whether_the_reply_continues_after_a_disconnect(on_disconnect):
    browser = client(ON_DISCONNECT=on_disconnect)
    response = post_message(browser)

    assert response.headers["X-On-Disconnect"] == on_disconnect
    with browser.get(response.headers["Location"], headers=ADA) as followed:
        assert followed.headers["X-On-Disconnect"] == on_disconnect


def test_a_frame_is_a_data_line_and_an_id_line():
    body = post_message(client()).get_data()

    for frame in body.removesuffix(b"\n\n").split(b"\n\n"):
        data, event_id = frame.split(b"\n")
        assert data.startswith(b"data: {")
        assert event_id.startswith(b"id: ")
    assert b"\r" not in body


def test_the_identity_comes_from_the_session_only():
    body = json.dumps({"message": "hi", "user_id": "eve", "org_id": "evil", "client_id": "evil"}).encode()

    with WireServer([RECEIPT], REPLY) as broker:
        post_message(client_of(broker), body).get_data()

    enqueued, followed = broker.requests
    sent = json.loads(enqueued.body)
    assert (sent["user_id"], sent["org_id"], sent["client_id"]) == ("ada", "default", "web")
    assert followed.path == "/api/v1/stream?user_id=ada&message_id=m-1"
    assert enqueued.headers["x-api-key"] == followed.headers["x-api-key"] == BROKER_KEY


@pytest.mark.parametrize(
    ("setting", "requested", "sent"),
    [("reject", None, "reject"), ("reject", "enqueue", "enqueue"), ("enqueue", "reject", "reject"), ("enqueue", None, None)],
)
def test_on_busy_is_passed_to_the_broker(setting, requested, sent):
    body = json.dumps({"message": "hi"} | ({"on_busy": requested} if requested else {})).encode()

    with WireServer([RECEIPT], REPLY) as broker:
        post_message(client_of(broker, ON_BUSY=setting), body).get_data()

    assert json.loads(broker.requests[0].body).get("on_busy") == sent


def test_audio_is_passed_to_the_broker_with_its_bare_format():
    audio = {"message": "", "message_type": "audio", "audio_base64": "QUJD", "audio_format": "audio/webm;codecs=opus"}

    with WireServer([RECEIPT], REPLY) as broker:
        response = post_message(client_of(broker), json.dumps(audio).encode())
        response.get_data()

    assert json.loads(broker.requests[0].body).items() >= (audio | {"audio_format": "webm"}).items()


# Invalid requests are not enqueued


BAD_BODIES = {
    "not JSON": (b"{", 400, "invalid_request"),
    "no object": (b"[]", 400, "invalid_request"),
    "a wrong type": (b'{"message": 5}', 400, "invalid_request"),
    "blank": (b'{"message": " \\u2003\\n"}', 400, "invalid_request"),
    "a lone surrogate": (b'{"message": "\\ud83d"}', 400, "invalid_request"),
    "NUL": (b'{"message": "a\\u0000b"}', 400, "invalid_request"),
    "invalid UTF-8": (b'{"message": "\xff"}', 400, "invalid_request"),
    "deep nesting": (b'{"message": ' + b"[" * 4_000, 400, "invalid_request"),
    "NaN": (b'{"message": "x", "more": [NaN]}', 400, "invalid_request"),
    "an unknown type": (b'{"message": "x", "message_type": "video"}', 400, "invalid_request"),
    "audio without audio": (b'{"message": "", "message_type": "audio"}', 400, "invalid_request"),
    "too large": (b'{"message": "' + b"x" * 5000 + b'"}', 413, "too_large"),
}


@pytest.mark.parametrize(("body", "status", "code"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_an_invalid_body_is_refused_and_not_enqueued(body, status, code):
    with WireServer([RECEIPT], REPLY) as broker:
        response = post_message(client_of(broker, MAX_BODY_BYTES="4096"), body)

        assert (response.status_code, response.json["code"]) == (status, code)
        assert set(response.json) == {"error", "code", "request_id"}
        assert response.json["request_id"] == response.headers["X-Request-ID"]
        assert not broker.requests


@pytest.mark.parametrize("key", ["", " ", "x" * 129, "a\tb"])
def test_an_invalid_idempotency_key_is_refused_and_not_enqueued(key):
    browser = client()

    for path in ("/api/chat/stream", "/api/chat"):
        response = browser.post(path, json={"message": "hello"}, headers={**ADA, "Idempotency-Key": key})
        assert (response.status_code, response.json["code"]) == (400, "invalid_request"), path

    assert browser.get("/api/chat/active", headers=ADA).json["messages"] == []


def test_a_body_that_is_not_json_is_refused():
    response = post_message(client(), Content_Type="text/plain")

    assert (response.status_code, response.json["code"]) == (415, "unsupported_media_type")


def test_unauthenticated_requests_are_refused():
    assert post_message(client(), X_Proxy_Secret="wrong").json["code"] == "forbidden"
    assert post_message(client(), X_Forwarded_User="").json["code"] == "unauthorized"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nowhere", 404, "not_found"), ("PUT", "/api/chat/stream", 405, "method_not_allowed")],
)
def test_unknown_paths_and_methods_get_json_errors(method, path, status, code):
    response = client().open(path, method=method)

    assert (response.status_code, response.json["code"]) == (status, code)
    assert response.headers.get("Allow") == ("GET, HEAD, OPTIONS, POST" if status == 405 else None)


# Failing brokers: before the response has started, an error is plain JSON


def open_seconds(steps: list) -> str:
    """Short only if nothing is sent: on a busy machine the steps take a while."""
    return "0.3" if steps == [HANG] else "20"


BAD_BROKERS = {
    "HTML": ([reply(b"<html>", content_type="text/html")], 502, "upstream_error"),
    "500": ([reply(b"Internal Server Error", "500 Internal Server Error", "text/plain")], 502, "upstream_error"),
    "401": ([reply(b'{"detail": "secret"}', "401 Unauthorized")], 502, "upstream_error"),
    "a 404 without our code": ([reply(b'{"detail": "Not Found"}', "404 Not Found")], 502, "upstream_error"),
    "a redirect": ([reply(b"", "307 Temporary Redirect", Location="http://127.0.0.1:9/")], 502, "upstream_error"),
    "an empty 200": ([reply(b"")], 502, "upstream_error"),
    "no message_id": ([reply(b"{}")], 502, "upstream_error"),
    "a message_id that is none": ([reply(b'{"message_id": "../x"}')], 502, "upstream_error"),
    "a 422 that repeats us": ([reply(b'{"detail": [{"input": "hello"}]}', "422 Unprocessable Entity")], 502, "upstream_error"),
    "compressed": ([reply(b"\x1f\x8b" * 50, Content_Encoding="gzip")], 502, "upstream_error"),
    "too much": ([reply(b'{"message_id": "' + b"x" * 2**21 + b'"}')], 502, "upstream_error"),
    "a 429": ([reply(b"{}", "429 Too Many Requests", Retry_After="7")], 429, "too_many_requests"),
    "a 503": ([reply(b"{}", "503 Service Unavailable", Retry_After="7")], 503, "upstream_unavailable"),
    "no response": ([HANG], 504, "upstream_timeout"),
    "a reset": ([CUT], 503, "upstream_unavailable"),
}


@pytest.mark.parametrize(("steps", "status", "code"), BAD_BROKERS.values(), ids=BAD_BROKERS)
def test_a_failed_enqueue_is_a_json_error(steps, status, code):
    with WireServer(steps) as broker:
        response = post_message(client_of(broker, UPSTREAM_OPEN_SECONDS=open_seconds(steps)))

    assert (response.status_code, response.json["code"]) == (status, code)
    assert "hello" not in response.get_data(as_text=True)
    assert ("Retry-After" in response.headers) == (status in {429, 503, 504}), "retry if it may have been enqueued"


NO_STREAMS = {
    "JSON instead": ([reply(b"{}")], 502, "upstream_error"),
    "500": ([reply(b"", "500 Internal Server Error")], 502, "upstream_error"),
    "compressed": ([stream_head(Content_Encoding="gzip"), HANG], 502, "upstream_error"),
    "no response": ([HANG], 504, "upstream_timeout"),
    "a reset": ([CUT], 503, "upstream_unavailable"),
}


@pytest.mark.parametrize(("steps", "status", "code"), NO_STREAMS.values(), ids=NO_STREAMS)
def test_a_stream_that_cannot_be_opened_is_a_json_error(steps, status, code):
    with WireServer([RECEIPT], steps) as broker:
        response = post_message(client_of(broker, UPSTREAM_OPEN_SECONDS=open_seconds(steps)))

    assert (response.status_code, response.json["code"]) == (status, code)
    assert response.headers["Retry-After"] == "2", "the reply goes on"


@pytest.mark.parametrize("steps", [case[0] for case in NO_STREAMS.values()], ids=NO_STREAMS)
def test_event_source_is_told_to_retry_when_a_stream_cannot_be_reopened(steps):
    with WireServer([reply(b'{"messages": []}')], steps) as broker:
        client = client_of(broker, UPSTREAM_OPEN_SECONDS=open_seconds(steps))
        source = client.get("/api/chat/stream/m-1", headers=ADA | {"Accept": "text/event-stream"})

    assert (source.status_code, source.mimetype) == (200, "text/event-stream")
    assert re.fullmatch(r"retry: [0-9]+\n\n", source.text)


@pytest.mark.parametrize("protocol", ["ai-sdk", "ag-ui"])
def test_clients_of_other_protocols_get_an_error_instead_of_retry(protocol):
    with WireServer([CUT]) as broker:
        client = client_of(broker)
        client.application.extensions["chat_bff"].broker.numbered = True
        fields = ADA | {"Accept": "text/event-stream"}
        path = f"/api/chat/stream/m-1?protocol={protocol}"
        refused = client.get(path, headers=fields)
        sent_away = client.get(path, headers=fields | {"X-Chat-Resume": "1"})

    assert (refused.status_code, refused.json["code"]) == (503, "upstream_unavailable")
    assert (sent_away.status_code, sent_away.text[:6]) == (200, "retry:")


def test_a_slow_broker_gets_the_message_itself():
    with WireServer([2.2, reply(NUMBERED)], [RECEIPT], REPLY, queue=None) as broker:
        browser = client_of(broker)
        response = post_message(browser)

        assert (response.headers["X-Message-ID"], contents(response)[-1]["type"]) == ("m-1", "complete")
        assert [request.method for request in broker.requests] == ["GET", "POST", "GET"]


def test_a_broker_too_slow_for_the_first_question_is_a_timeout():
    with WireServer([HANG], queue=None) as broker:
        response = post_message(client_of(broker, UPSTREAM_OPEN_SECONDS="0.3"))

        assert (response.status_code, response.json["code"]) == (504, "upstream_timeout")
        assert response.headers["Retry-After"]
        assert len(broker.requests) == 1, "the message was not enqueued anywhere"


def test_an_unreachable_broker_is_unavailable():
    with WireServer([END]) as broker:
        browser = client_of(broker)

    response = post_message(browser)

    assert (response.status_code, response.json["code"]) == (503, "upstream_unavailable")


def test_a_failure_is_logged_once_without_the_message(capfd):
    with WireServer([reply(b"secret", "500 Internal Server Error")]) as broker:
        post_message(client_of(broker), X_Request_ID="find-me")

    lines = [line for line in capfd.readouterr().err.splitlines() if "find-me" in line]
    assert len(lines) == 1
    assert json.loads(lines[0])["code"] == "upstream_error"
    assert "hello" not in lines[0]
    assert BROKER_KEY not in lines[0]


# Failing brokers: once the response has started, an error is the last event


def test_a_stream_without_a_terminal_event_ends_with_an_error():
    with WireServer([RECEIPT], [*QUEUED, LAST_CHUNK], queue=UNNUMBERED) as broker:
        response = post_message(client_of(broker))
        last = contents(response)[-1]

    assert (last["type"], last["code"]) == ("error", "answer_incomplete")
    assert last["request_id"] == response.headers["X-Request-ID"]


def test_a_broken_stream_ends_with_an_error():
    with WireServer([RECEIPT], [*QUEUED, CUT], [stream_head(), CUT]) as broker:
        assert contents(post_message(client_of(broker)))[-1]["code"] == "upstream_unavailable"


def test_a_silent_stream_ends_with_an_error():
    with WireServer([RECEIPT], [*QUEUED, HANG], [stream_head(), HANG]) as broker:
        assert contents(post_message(client_of(broker, UPSTREAM_READ_SECONDS="0.2")))[-1]["code"] == "upstream_timeout"


def test_an_event_over_the_size_limit_ends_with_an_error():
    with WireServer([RECEIPT], [*QUEUED, chunk(b"data: " + b"x" * 5000), 0.05, chunk(b"x"), HANG]) as broker:
        assert contents(post_message(client_of(broker, MAX_EVENT_BYTES="1024")))[-1]["code"] == "upstream_error"


# The broker's stream is closed even if the response is never iterated


def test_an_unread_response_closes_the_brokers_stream():
    with WireServer([RECEIPT], [stream_head(), HANG]) as broker:
        post_message(client_of(broker)).close()

        assert broker.wait_for(lambda: broker.open_connections == 0)


def test_a_failing_start_response_closes_the_brokers_stream():
    def refuse(*_):
        raise AssertionError("an invalid header")

    with WireServer([RECEIPT], [stream_head(), HANG]) as broker:
        app = client_of(broker).application
        environ = app.test_request_context(
            "/api/chat/stream", method="POST", data=b'{"message":"x"}', content_type="application/json", headers=ADA
        ).request.environ
        with pytest.raises(AssertionError):
            app.wsgi_app(environ, refuse)

        assert broker.wait_for(lambda: broker.open_connections == 0)


# On real servers


@pytest.mark.live
def test_words_arrive_one_at_a_time(start, kind):
    server = start(kind, ECHO_WORD_SECONDS="0.15")

    with Browser(server).say("one two three") as reply:
        arrivals = [(event["type"], monotonic()) for event in reply.events()]

    assert [kind for kind, _ in arrivals] == ["status", "status", "progress", "progress", "progress", "complete"]
    assert arrivals[4][1] - arrivals[2][1] > 0.2


@pytest.mark.live
def test_headers_arrive_before_the_first_event(start, kind):
    with WireServer([RECEIPT], [stream_head(), HANG]) as broker:
        server = start(kind, BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY)
        started_at = monotonic()

        with Browser(server).say("hello") as reply:
            assert reply.message_id == "m-1"
            assert monotonic() - started_at < 2
            reply.leave()


@pytest.mark.live
def test_rapid_messages_of_one_user_are_answered_in_order(start, kind):
    server = start(kind, ECHO_WORD_SECONDS="0.005", MAX_STREAMS_PER_USER="10")
    browser = Browser(server)
    replies = [browser.say(f"number {number}") for number in range(10)]

    events = in_parallel(10, lambda number: list(replies[number].events()))

    assert [text_of(reply_events) for reply_events in events] == [f"number {number}" for number in range(10)]
    spans = [[order(event) for event in reply_events if event["type"] != "status"] for reply_events in events]
    assert all(span[-1] < later[0] for span, later in pairwise(spans)), "each starts after the one before has ended"


@pytest.mark.live
def test_rapid_messages_to_the_original_broker_are_answered_in_order(start, kind):
    with OriginalBroker() as broker:
        server = start(kind, BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, MAX_STREAMS_PER_USER="10")
        browser = Browser(server)
        replies = [browser.say(f"number {number}") for number in range(10)]

        texts = in_parallel(10, lambda number: text_of(list(replies[number].events())))

        assert texts == [f"number {number} " for number in range(10)]
        assert broker.completed == [f"number {number}" for number in range(10)]


@pytest.mark.live
@pytest.mark.parametrize(
    ("field", "body", "status"),
    [
        ("Content-Length: 99999", b"", 413),
        ("Transfer-Encoding: chunked", chunk(b"x" * 3000) + chunk(b"x" * 3000) + LAST_CHUNK, 413),
        ("Transfer-Encoding: chunked", chunk(b'{"message":') + chunk(b'"chunked"}') + LAST_CHUNK, 200),
        ("X-Nothing: said", b"", 411),
    ],
    ids=["declared too large", "chunked too large", "chunked", "no length"],
)
def test_the_body_size_is_limited(share, kind, field, body, status):
    server = share(kind, MAX_BODY_BYTES="4096")
    request = head("POST", "/api/chat/stream", "Content-Type: application/json", field) + body

    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        sock.sendall(request)
        response = sock.recv(65536)

    assert response.startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.live
@pytest.mark.parametrize(
    "command", ["/error", "/cut", "/unicode", "/tool", "/big 300", "/help", "/silence 0.3", "/slow 0.2 a b c"]
)
def test_every_command_of_the_engine_has_one_terminal_event(share, kind, user, command):
    with Browser(share(kind), user).say(command) as reply:
        events = list(reply.events())

    assert events[-1]["type"] == ("error" if command in {"/error", "/cut"} else "complete")
    if events[-1]["type"] == "complete":
        assert text_of(events) in (events[-1]["response"]["responses"][0], "")


@pytest.mark.live
def test_each_stream_logs_one_line(share, kind, user):
    server = share(kind)

    with Browser(server, user).say("top secret words", X_Request_ID="find-me") as reply:
        list(reply.events())

    (line,) = eventually(lambda: [line for line in server.log_lines if line.get("request_id") == "find-me" and "ended" in line])
    assert (line["ended"], line["events"], line["message_id"]) == ("complete", 6, reply.message_id)
    assert line["first_event_ms"] <= line["ms"]
    assert line["bytes"] > 6 * len("data: {}")
    assert "secret" not in server.log
