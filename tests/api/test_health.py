import pytest

from tests.live import ADA, BROKER_KEY, new_app
from tests.wire_server import CUT, WireServer, reply


@pytest.fixture
def app():
    return new_app(DRAIN_SECONDS="0.1")


@pytest.mark.parametrize(
    ("path", "content"), [("/healthz", {"status": "ok"}), ("/readyz", {"status": "ready", "broker": "ok", "database": "ok"})]
)
def test_health_needs_no_authentication(app, path, content):
    response = app.test_client().get(path)

    assert (response.status_code, response.json) == (200, content)


@pytest.mark.parametrize(
    ("wire_reply", "state"),
    [
        (reply(b'{"status":"unhealthy"}'), "upstream_unavailable"),
        (reply(b"nonsense"), "upstream_error"),
        (CUT, "upstream_unavailable"),
    ],
    ids=["unhealthy", "nonsense", "cut"],
)
def test_a_process_without_its_broker_is_alive_and_not_ready(wire_reply, state):
    with WireServer([wire_reply]) as broker:
        client = new_app(BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY).test_client()

        response = client.get("/readyz")

    assert (response.status_code, response.json) == (503, {"status": "unready", "broker": state, "database": "ok"})
    assert client.get("/healthz").status_code == 200


def test_a_draining_process_is_alive_and_not_ready(app):
    app.extensions["chat_bff"].lifecycle.drain()
    client = app.test_client()

    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503


def test_a_draining_process_refuses_requests(app):
    app.extensions["chat_bff"].lifecycle.drain()
    client = app.test_client()

    for response in (
        client.post("/api/chat/stream", json={"message": "hello"}, headers=ADA),
        client.get("/api/chat/stream/m-1", headers=ADA),
        client.get("/api/chat/active", headers=ADA),
    ):
        assert (response.status_code, response.json["code"]) == (503, "server_restarting")
        assert response.headers["Retry-After"] == "1"


def test_a_draining_process_tells_event_source_to_retry(app):
    app.extensions["chat_bff"].lifecycle.drain()

    response = app.test_client().get("/api/chat/stream/m-1", headers={**ADA, "Accept": "text/event-stream"})

    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    assert response.headers["Cache-Control"] == "no-store, no-transform"
    retry = response.get_data(as_text=True).removeprefix("retry: ").removesuffix("\n\n")
    assert 500 <= int(retry) <= 3000


@pytest.mark.parametrize("wire_reply", [reply(b"{}"), reply(b"nonsense", "404 Not Found"), reply(b"", "401 Unauthorized")])
def test_an_engine_that_responds_at_all_is_ok(wire_reply):
    with WireServer([wire_reply]) as engine:
        response = new_app(ENGINE_BASE_URL=engine.url, ENGINE_API_KEY="k" * 32).test_client().get("/readyz")

    assert (response.status_code, response.json) == (200, {"status": "ready", "broker": "ok", "database": "ok", "engine": "ok"})


def test_each_unavailable_service_is_named():
    client = new_app(ENGINE_BASE_URL="http://127.0.0.1:1", REDIS_URL="redis://127.0.0.1:1/0").test_client()

    response = client.get("/readyz")

    unavailable = dict.fromkeys(("broker", "engine", "redis"), "upstream_unavailable")
    assert (response.status_code, response.json) == (503, {"status": "unready", "database": "ok"} | unavailable)
