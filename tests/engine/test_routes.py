"""The engine's HTTP contract for chat, with the demo agent."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.serving import WSGIRequestHandler, make_server

from bff.auth.identity import Identity
from bff.config.settings import Settings
from bff.engine.agents.demo import HELP, UNICODE
from bff.engine.app import create_engine
from bff.upstream.messages import ChatMessage
from tests.frames import decoded
from tests.live import DEADLINE, FOLDER

KEY = "k" * 64
SETTINGS = Settings(
    echo_word_seconds=0, max_body_bytes=4096, database_url=f"sqlite:///{FOLDER}/engine.db", app_env="development"
)
STREAM, CHAT = "/api/v1/chat/stream", "/api/v1/chat"
REQUEST = {"client_id": "web", "user_id": "ann", "org": "default", "message": "hello", "message_type": "text"}

HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}

both_paths = pytest.mark.parametrize("path", [STREAM, CHAT])


@pytest.fixture(scope="module")
def client():
    return create_engine(SETTINGS, KEY).test_client()


class Chunked(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # HTTP/1.0 has no chunks: a cut stream would look complete.


@contextmanager
def served(app) -> Iterator[http.client.HTTPConnection]:
    """A connection to `app` over a socket."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Chunked)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=DEADLINE)
    try:
        yield connection
    finally:
        connection.close()
        server.shutdown()
        thread.join(DEADLINE)
        server.server_close()


def post(client, path: str, key: str | None = KEY, **request):
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return client.post(path, headers=headers, **request)


def send(client, message: str, path: str = STREAM):
    return post(client, path, json=REQUEST | {"message": message})


def contents(body: bytes) -> list[dict]:
    events = decoded([body])
    assert all((event.event, event.id) == ("message", "") for event in events)
    return [json.loads(event.data) for event in events]


def streamed(client, message: str) -> list[dict]:
    with send(client, message) as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        return contents(response.data)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200)
texts = texts.filter(lambda text: text.strip() and not text.strip().startswith("/"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts)
def test_a_message_is_echoed_in_pieces_and_then_as_a_whole(client, message):
    *pieces, end = streamed(client, message)

    assert all(piece["type"] == "progress" for piece in pieces)
    assert "".join(piece["text"] for piece in pieces) == message
    assert end == {
        "type": "complete",
        "response": {"responses": [message], "response_language": "en", "voice_audio_base64": None},
    }


def test_each_word_is_an_event(client):
    assert [piece.get("text") for piece in streamed(client, "In the beginning")] == ["In ", "the ", "beginning", None]


def test_without_streaming_the_reply_is_one_json_object(client):
    first, second = send(client, "Ἐν ἀρχῇ", CHAT), send(client, "Ἐν ἀρχῇ", CHAT)

    reply = first.get_json()
    assert first.status_code == 200
    assert reply.pop("message_id") != second.get_json()["message_id"]
    assert reply == {"responses": ["Ἐν ἀρχῇ"], "response_language": "en", "voice_audio_base64": None}


@pytest.mark.parametrize(
    ("message", "kinds", "reply"),
    [
        ("/slow 0 one two", ["progress", "progress", "complete"], "one two"),
        ("/silence 0", ["progress", "complete"], "Silent for 0 s."),
        ("/big 2", ["progress", "complete"], None),
        ("/tool", ["status", "tool_use", "tool_result", "progress", "complete"], "For God so loved the world."),
        ("/help", ["progress", "complete"], HELP),
        ("/nothing", ["progress", "complete"], "/nothing"),
    ],
)
def test_commands(client, message, kinds, reply):
    events = streamed(client, message)
    responses = send(client, message, CHAT).get_json()["responses"]

    assert [event["type"] for event in events] == kinds
    assert events[-1]["response"]["responses"] == responses
    assert reply in {None, *responses}


def test_unicode_is_transferred_unchanged(client):
    assert streamed(client, "/unicode")[-1]["response"]["responses"] == [UNICODE]


def test_an_agents_error_ends_the_stream_and_is_502_without_streaming(client):
    assert [event["type"] for event in streamed(client, "/error")] == ["progress", "error"]

    response = send(client, "/error", CHAT)

    assert (response.status_code, response.get_json()["code"]) == (502, "upstream_error")


def test_a_cut_connection_is_an_incomplete_read():
    with served(create_engine(SETTINGS, KEY)) as connection:
        connection.request("POST", STREAM, json.dumps(REQUEST | {"message": "/cut"}), HEADERS)
        response = connection.getresponse()
        with pytest.raises(http.client.IncompleteRead) as cut:
            response.read()

    assert response.status == 200
    assert contents(cut.value.partial) == [{"type": "progress", "text": "This breaks "}]


def test_the_agents_can_be_passed_in():
    class Parrot:
        def stream(self, history, identity, waiter):
            assert (history[-1], identity) == (ChatMessage("user", "hello"), Identity("ann", "default"))
            yield from ("Pretty ", None, "Polly")

    client = create_engine(SETTINGS, KEY, {"demo": Parrot()}).test_client()

    assert streamed(client, "hello")[-1]["response"]["responses"] == ["Pretty Polly"]
    assert send(client, "hello", CHAT).get_json()["responses"] == ["Pretty Polly"]


class WaitingAgent:
    """Yields no text until its reader disconnects, or `released` is set."""

    def __init__(self) -> None:
        self.started, self.ended, self.released = threading.Event(), threading.Event(), threading.Event()

    def stream(self, history, identity, waiter):
        self.started.set()
        try:
            while not self.released.is_set():
                yield None
                waiter.wait()
        finally:
            self.ended.set()


def test_a_stream_ends_when_its_client_disconnects():
    agent = WaitingAgent()
    with served(create_engine(SETTINGS, KEY, {"demo": agent})) as connection:
        connection.request("POST", STREAM, json.dumps(REQUEST), HEADERS)
        assert agent.started.wait(DEADLINE)

        connection.close()
        ended = agent.ended.wait(DEADLINE)
        agent.released.set()

    assert ended


@both_paths
@pytest.mark.parametrize("key", [None, "", "k", KEY + "k", KEY.upper(), "é" * 64, "\udcff"], ids=ascii)
def test_a_wrong_key_is_refused(client, path, key):
    response = post(client, path, key, json=REQUEST)

    assert (response.status_code, response.get_json()["code"]) == (401, "unauthorized")


@both_paths
@pytest.mark.parametrize("authorization", [KEY, f"Basic {KEY}", f"Bearer  {KEY}", f"Bearer {KEY}, Bearer {KEY}"])
def test_the_key_must_be_one_bearer_token(client, path, authorization):
    assert client.post(path, headers={"Authorization": authorization}, json=REQUEST).status_code == 401


@both_paths
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b" ", 400, "invalid_request"),
        (b"hello", 400, "invalid_request"),
        (b"null", 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (b"{}", 400, "invalid_request"),
        (b"[" * 4000, 400, "invalid_request"),
        (json.dumps(REQUEST | {"message": "x"}).encode()[:-3], 400, "invalid_request"),
        (json.dumps(REQUEST | {"message": 5}).encode(), 400, "invalid_request"),
        (json.dumps(REQUEST | {"message": "\ud800"}).encode(), 400, "invalid_request"),
        (json.dumps(REQUEST).encode().replace(b"hello", b"\xff"), 400, "invalid_request"),
        (json.dumps(REQUEST | {"user_id": ""}).encode(), 400, "invalid_request"),
        (json.dumps(REQUEST | {"org": None}).encode(), 400, "invalid_request"),
        (json.dumps(REQUEST | {"message_type": "video"}).encode(), 400, "invalid_request"),
        (json.dumps(REQUEST | {"options": {"temperature": float("nan")}}).encode(), 400, "invalid_request"),
        (json.dumps(REQUEST | {"message": "x" * 5000}).encode(), 413, "too_large"),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else "",
)
def test_an_invalid_body_is_refused(client, path, body, status, code):
    response = post(client, path, data=body, content_type="application/json")

    assert (response.status_code, response.get_json()["code"]) == (status, code)
    assert set(response.get_json()) == {"error", "code"}


@both_paths
def test_the_answer_to_options_has_no_content_type(client, path):
    response = client.options(path, headers=HEADERS)

    assert (response.status_code, response.data, response.content_type) == (200, b"", None)


@both_paths
@pytest.mark.parametrize("missing", sorted(set(REQUEST) - {"message_type"}))
def test_the_error_names_a_missing_field(client, path, missing):
    response = post(client, path, json={name: value for name, value in REQUEST.items() if name != missing})

    assert response.status_code == 400
    assert response.get_json()["error"].startswith(f"{missing}: ")


@both_paths
def test_content_type_and_length_are_required(client, path):
    without_type = post(client, path, data=json.dumps(REQUEST), content_type="text/plain")
    without_length = post(client, path, json=REQUEST, environ_overrides={"CONTENT_LENGTH": ""})

    assert (without_type.status_code, without_type.get_json()["code"]) == (415, "unsupported_media_type")
    assert (without_length.status_code, without_length.get_json()["code"]) == (411, "length_required")


@both_paths
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=100)
    | st.dictionaries(st.sampled_from([*REQUEST, "x"]), st.none() | st.text() | st.integers()).map(
        lambda content: json.dumps(content).encode()
    )
)
def test_no_body_causes_a_server_error(client, path, body):
    with post(client, path, data=body, content_type="application/json") as response:
        assert response.status_code < 500


@pytest.mark.parametrize(
    ("method", "path"), [("GET", CHAT), ("GET", STREAM), ("PUT", CHAT), ("POST", "/nowhere"), ("GET", "/")]
)
def test_unknown_routes_and_methods_are_client_errors(client, method, path):
    response = client.open(path, method=method, headers={"Authorization": f"Bearer {KEY}"})

    assert 400 <= response.status_code < 500
    assert set(response.get_json()) == {"error", "code"}
