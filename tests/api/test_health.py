import pytest

from tests.live import ADA, BROKER_KEY, new_app
from tests.wire_server import CUT, WireServer, reply


@pytest.fixture
def app():
    return new_app(DRAIN_SECONDS="0.1")


@pytest.mark.parametrize(
    ("path", "content"), [("/healthz", {"status": "ok"}), ("/readyz", {"status": "ready", "broker": "ok", "database": "ok"})]
)
def test_who_asks_without_a_name_is_told_how_we_are(app, path, content):
    response = app.test_client().get(path)

    assert (response.status_code, response.json) == (200, content)


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (reply(b'{"status":"unhealthy"}'), "upstream_unavailable"),
        (reply(b"nonsense"), "upstream_error"),
        (CUT, "upstream_unavailable"),
    ],
    ids=["unhealthy", "nonsense", "cut"],
)
def test_without_its_broker_a_process_is_alive_and_not_ready(answer, state):
    with WireServer([answer]) as broker:
        client = new_app(BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY).test_client()

        response = client.get("/readyz")

    assert (response.status_code, response.json) == (503, {"status": "unready", "broker": state, "database": "ok"})
    assert client.get("/healthz").status_code == 200


def test_a_process_that_drains_is_alive_and_not_ready(app):
    app.extensions["chat_bff"].lifecycle.drain()
    client = app.test_client()

    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503


def test_a_process_that_drains_takes_nothing_on(app):
    app.extensions["chat_bff"].lifecycle.drain()
    client = app.test_client()

    for response in (
        client.post("/api/chat/stream", json={"message": "hello"}, headers=ADA),
        client.get("/api/chat/stream/m-1", headers=ADA),
        client.get("/api/chat/active", headers=ADA),
    ):
        assert (response.status_code, response.json["code"]) == (503, "server_restarting")
        assert response.headers["Retry-After"] == "1"


def test_an_event_source_that_meets_a_drain_comes_back(app):
    app.extensions["chat_bff"].lifecycle.drain()

    response = app.test_client().get("/api/chat/stream/m-1", headers={**ADA, "Accept": "text/event-stream"})

    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    assert response.headers["Cache-Control"] == "no-store, no-transform"
    retry = response.get_data(as_text=True).removeprefix("retry: ").removesuffix("\n\n")
    assert 500 <= int(retry) <= 3000


@pytest.mark.parametrize("answer", [reply(b"{}"), reply(b"nonsense", "404 Not Found"), reply(b"", "401 Unauthorized")])
def test_a_remote_engine_that_answers_anything_is_there(answer):
    with WireServer([answer]) as engine:
        response = new_app(ENGINE_BASE_URL=engine.url, ENGINE_API_KEY="k" * 32).test_client().get("/readyz")

    assert (response.status_code, response.json) == (200, {"status": "ready", "broker": "ok", "database": "ok", "engine": "ok"})


def test_each_of_those_that_are_away_is_named():
    client = new_app(ENGINE_BASE_URL="http://127.0.0.1:1", REDIS_URL="redis://127.0.0.1:1/0").test_client()

    response = client.get("/readyz")

    away = dict.fromkeys(("broker", "engine", "redis"), "upstream_unavailable")
    assert (response.status_code, response.json) == (503, {"status": "unready", "database": "ok"} | away)
