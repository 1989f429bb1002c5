import pytest

from bff import create_app
from bff.settings import Settings
from tests.live import BASE_ENVIRONMENT, PROXY_SECRET

ADA = {"X-Proxy-Secret": PROXY_SECRET, "X-Forwarded-User": "ada"}


@pytest.fixture
def app():
    return create_app(Settings.from_environment({**BASE_ENVIRONMENT, "DRAIN_SECONDS": "0.1"}))


@pytest.mark.parametrize(("path", "status"), [("/healthz", "ok"), ("/readyz", "ready")])
def test_who_asks_without_a_name_is_told_how_we_are(app, path, status):
    response = app.test_client().get(path)

    assert (response.status_code, response.json) == (200, {"status": status})


def test_a_process_that_drains_is_alive_and_not_ready(app):
    app.extensions["life"].drain()
    client = app.test_client()

    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503


def test_a_process_that_drains_takes_nothing_on(app):
    app.extensions["life"].drain()
    client = app.test_client()

    for response in (
        client.post("/api/chat/stream", json={"message": "hello"}, headers=ADA),
        client.get("/api/chat/stream/m-1", headers=ADA),
        client.get("/api/chat/active", headers=ADA),
    ):
        assert (response.status_code, response.json["code"]) == (503, "server_restarting")
        assert response.headers["Retry-After"] == "1"


def test_an_event_source_that_meets_a_drain_comes_back(app):
    app.extensions["life"].drain()

    response = app.test_client().get("/api/chat/stream/m-1", headers={**ADA, "Accept": "text/event-stream"})

    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    assert response.headers["Cache-Control"] == "no-store, no-transform"
    retry = response.get_data(as_text=True).removeprefix("retry: ").removesuffix("\n\n")
    assert 500 <= int(retry) <= 3000
