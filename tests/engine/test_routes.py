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
ASKED = {"client_id": "web", "user_id": "ann", "org": "unfoldingWord", "message": "hello", "message_type": "text"}

HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}

both = pytest.mark.parametrize("path", [STREAM, CHAT])


@pytest.fixture(scope="module")
def client():
    return create_engine(SETTINGS, KEY).test_client()


class Chunked(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # Without it a stream has no chunks, and a cut would look like its end.


@contextmanager
def served(app) -> Iterator[http.client.HTTPConnection]:
    """A connection to it, as an engine in a process of its own has them."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Chunked)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=DEADLINE)
    try:
        yield connection
    finally:
        connection.close()
        server.shutdown()
        serving.join(DEADLINE)
        server.server_close()


def post(client, path: str, key: str | None = KEY, **request):
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return client.post(path, headers=headers, **request)


def ask(client, message: str, path: str = STREAM):
    return post(client, path, json=ASKED | {"message": message})


def contents(body: bytes) -> list[dict]:
    events = decoded([body])
    assert all((event.event, event.id) == ("message", "") for event in events)
    return [json.loads(event.data) for event in events]


def streamed(client, message: str) -> list[dict]:
    with ask(client, message) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        return contents(answer.data)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200)
texts = texts.filter(lambda text: text.strip() and not text.strip().startswith("/"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts)
def test_what_is_said_comes_back_in_pieces_and_then_whole(client, message):
    *pieces, end = streamed(client, message)

    assert all(piece["type"] == "progress" for piece in pieces)
    assert "".join(piece["text"] for piece in pieces) == message
    assert end == {
        "type": "complete",
        "response": {"responses": [message], "response_language": "en", "voice_audio_base64": None},
    }


def test_each_word_is_an_event(client):
    assert [piece.get("text") for piece in streamed(client, "In the beginning")] == ["In ", "the ", "beginning", None]


def test_one_json_answer_holds_all_of_it(client):
    first, second = ask(client, "Ἐν ἀρχῇ", CHAT), ask(client, "Ἐν ἀρχῇ", CHAT)

    answer = first.get_json()
    assert first.status_code == 200
    assert answer.pop("message_id") != second.get_json()["message_id"]
    assert answer == {"responses": ["Ἐν ἀρχῇ"], "response_language": "en", "voice_audio_base64": None}


@pytest.mark.parametrize(
    ("message", "kinds", "answer"),
    [
        ("/slow 0 one two", ["progress", "progress", "complete"], "one two"),
        ("/silence 0", ["progress", "complete"], "That were 0 seconds."),
        ("/big 2", ["progress", "complete"], None),
        ("/tool", ["status", "tool_use", "tool_result", "progress", "complete"], "For God so loved the world."),
        ("/help", ["progress", "complete"], HELP),
        ("/nothing", ["progress", "complete"], "/nothing"),
    ],
)
def test_a_command_is_obeyed(client, message, kinds, answer):
    events = streamed(client, message)
    once = ask(client, message, CHAT).get_json()["responses"]

    assert [event["type"] for event in events] == kinds
    assert events[-1]["response"]["responses"] == once
    assert answer in {None, *once}


def test_unicode_survives_the_wire(client):
    assert streamed(client, "/unicode")[-1]["response"]["responses"] == [UNICODE]


def test_an_error_ends_the_stream_and_is_a_bad_gateway_elsewhere(client):
    assert [event["type"] for event in streamed(client, "/error")] == ["progress", "error"]

    answer = ask(client, "/error", CHAT)

    assert (answer.status_code, answer.get_json()["code"]) == (502, "upstream_error")


def test_a_cut_is_no_end_on_a_real_socket():
    with served(create_engine(SETTINGS, KEY)) as connection:
        connection.request("POST", STREAM, json.dumps(ASKED | {"message": "/cut"}), HEADERS)
        answer = connection.getresponse()
        with pytest.raises(http.client.IncompleteRead) as cut:
            answer.read()

    assert answer.status == 200
    assert contents(cut.value.partial) == [{"type": "progress", "text": "This breaks "}]


def test_another_agent_can_answer():
    class Parrot:
        def stream(self, history, identity, waiter):
            assert (history[-1], identity) == (ChatMessage("user", "hello"), Identity("ann", "unfoldingWord"))
            yield from ("Pretty ", None, "Polly")

    client = create_engine(SETTINGS, KEY, {"demo": Parrot()}).test_client()

    assert streamed(client, "hello")[-1]["response"]["responses"] == ["Pretty Polly"]
    assert ask(client, "hello", CHAT).get_json()["responses"] == ["Pretty Polly"]


class Patient:
    """Says nothing until its reader has left, or `enough` is set."""

    def __init__(self) -> None:
        self.asked, self.ended, self.enough = threading.Event(), threading.Event(), threading.Event()

    def stream(self, history, identity, waiter):
        self.asked.set()
        try:
            while not self.enough.is_set():
                yield None
                waiter.wait()
        finally:
            self.ended.set()


def test_a_stream_ends_when_its_caller_has_left():
    agent = Patient()
    with served(create_engine(SETTINGS, KEY, {"demo": agent})) as connection:
        connection.request("POST", STREAM, json.dumps(ASKED), HEADERS)
        assert agent.asked.wait(DEADLINE)

        connection.close()
        ended = agent.ended.wait(DEADLINE)
        agent.enough.set()

    assert ended


@both
@pytest.mark.parametrize("key", [None, "", "k", KEY + "k", KEY.upper(), "é" * 64, "\udcff"], ids=ascii)
def test_a_caller_must_show_the_key(client, path, key):
    answer = post(client, path, key, json=ASKED)

    assert (answer.status_code, answer.get_json()["code"]) == (401, "unauthorized")


@both
@pytest.mark.parametrize("shown", [KEY, f"Basic {KEY}", f"Bearer  {KEY}", f"Bearer {KEY}, Bearer {KEY}"])
def test_the_key_is_shown_as_a_bearers(client, path, shown):
    assert client.post(path, headers={"Authorization": shown}, json=ASKED).status_code == 401


@both
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b" ", 400, "invalid_request"),
        (b"hello", 400, "invalid_request"),
        (b"null", 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (b"{}", 400, "invalid_request"),
        (b"[" * 4000, 400, "invalid_request"),
        (json.dumps(ASKED | {"message": "x"}).encode()[:-3], 400, "invalid_request"),
        (json.dumps(ASKED | {"message": 5}).encode(), 400, "invalid_request"),
        (json.dumps(ASKED | {"message": "\ud800"}).encode(), 400, "invalid_request"),
        (json.dumps(ASKED).encode().replace(b"hello", b"\xff"), 400, "invalid_request"),
        (json.dumps(ASKED | {"user_id": ""}).encode(), 400, "invalid_request"),
        (json.dumps(ASKED | {"org": None}).encode(), 400, "invalid_request"),
        (json.dumps(ASKED | {"message_type": "video"}).encode(), 400, "invalid_request"),
        (json.dumps(ASKED | {"message": "x" * 5000}).encode(), 413, "too_large"),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else "",
)
def test_a_bad_body_is_refused(client, path, body, status, code):
    answer = post(client, path, data=body, content_type="application/json")

    assert (answer.status_code, answer.get_json()["code"]) == (status, code)
    assert set(answer.get_json()) == {"error", "code"}


@both
@pytest.mark.parametrize("missing", sorted(set(ASKED) - {"message_type"}))
def test_a_field_that_is_missing_is_named(client, path, missing):
    answer = post(client, path, json={name: value for name, value in ASKED.items() if name != missing})

    assert answer.status_code == 400
    assert answer.get_json()["error"].startswith(f"{missing}: ")


@both
def test_a_body_must_say_its_type_and_its_length(client, path):
    untyped = post(client, path, data=json.dumps(ASKED), content_type="text/plain")
    endless = post(client, path, json=ASKED, environ_overrides={"CONTENT_LENGTH": ""})

    assert (untyped.status_code, untyped.get_json()["code"]) == (415, "unsupported_media_type")
    assert (endless.status_code, endless.get_json()["code"]) == (411, "length_required")


@both
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=100)
    | st.dictionaries(st.sampled_from([*ASKED, "x"]), st.none() | st.text() | st.integers()).map(
        lambda content: json.dumps(content).encode()
    )
)
def test_no_body_at_all_breaks_the_engine(client, path, body):
    with post(client, path, data=body, content_type="application/json") as answer:
        assert answer.status_code < 500


@pytest.mark.parametrize(
    ("method", "path"), [("GET", CHAT), ("GET", STREAM), ("PUT", CHAT), ("POST", "/nowhere"), ("GET", "/")]
)
def test_what_is_not_there_is_no_fault_of_the_engines(client, method, path):
    answer = client.open(path, method=method, headers={"Authorization": f"Bearer {KEY}"})

    assert 400 <= answer.status_code < 500
    assert set(answer.get_json()) == {"error", "code"}
