import re
from uuid import UUID

import pytest
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from bff.app import BLUEPRINTS
from tests.live import ADA, new_app

HOOKED = {"X-Request-ID", "Content-Security-Policy", "X-Content-Type-Options"}


@pytest.fixture
def host():
    """A third-party application that registers our blueprints and has a route of its own."""
    host = Flask("host", static_folder=None)
    host.extensions["chat_bff"] = new_app().extensions["chat_bff"]
    for module in BLUEPRINTS:
        host.register_blueprint(module.bp)
    host.add_url_rule("/own", view_func=lambda: "own")
    return host


@pytest.mark.parametrize("path", ["/own", "/nowhere"])
def test_a_host_applications_own_routes_are_not_touched(host, path):
    response = host.test_client().get(path, headers={"Sec-Fetch-Site": "cross-site"})

    assert (response.status_code, response.text == "own") == ((200, True) if path == "/own" else (404, False))
    assert not response.is_json
    assert not HOOKED & set(response.headers.keys())


@pytest.mark.parametrize(("path", "status"), [("/api/chat/active", 200), ("/api/conversations?limit=x", 400), ("/", 200)])
def test_hooks_apply_to_our_routes_in_a_host_application(host, path, status):
    response = host.test_client().get(path, headers=ADA)

    assert response.status_code == status
    assert set(response.headers.keys()) >= HOOKED
    if status == 400:
        assert set(response.json) == {"error", "code", "request_id"}


def test_every_blueprint_has_the_hooks():
    app = new_app()

    for rule in app.url_map.iter_rules():
        path = re.sub("<[^>]*>", str(UUID(int=0)), rule.rule)
        with app.test_client().options(path) as response:
            assert response.status_code == 200
            assert set(response.headers.keys()) >= HOOKED, f"hooks.add_hooks() is missing for {rule.endpoint}"


def test_a_host_application_has_our_csrf_protection(host):
    response = host.test_client().get("/api/chat/active", headers=ADA | {"Sec-Fetch-Site": "cross-site"})

    assert (response.status_code, response.json["code"]) == (403, "forbidden")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/api/chat/active", 405)])
def test_unknown_paths_of_our_own_app_get_json_errors_and_all_headers(method, path, status):
    response = new_app().test_client().open(path, method=method)

    assert response.status_code == status
    assert response.json["request_id"] == response.headers["X-Request-ID"]
    assert set(response.headers.keys()) >= HOOKED


@pytest.mark.parametrize(("path", "lines"), [("/api/chat/active", 1), ("/nowhere", 1), ("/static/chat.js", 0)])
def test_a_request_is_logged_once_unless_it_is_streamed(capfd, path, lines):
    new_app().test_client().get(path, headers=ADA).close()

    assert capfd.readouterr().err.count('"logger": "bff.requests"') == lines


def test_location_has_the_prefix_of_a_mounted_app():
    client = Client(DispatcherMiddleware(Flask("root"), {"/mounted": new_app().wsgi_app}))

    response = client.post("/mounted/api/chat/stream", json={"message": "hello"}, headers=ADA)
    response.get_data()

    assert response.headers["Location"] == f"/mounted/api/chat/stream/{response.headers['X-Message-ID']}"
