import re
from uuid import UUID

import pytest
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from tests.live import ADA, new_app

HOOKED = {"X-Request-ID", "Content-Security-Policy", "X-Content-Type-Options"}


def test_every_blueprint_has_the_hooks():
    app = new_app()

    for rule in app.url_map.iter_rules():
        path = re.sub("<[^>]*>", str(UUID(int=0)), rule.rule)
        with app.test_client().options(path) as response:
            assert response.status_code == 200
            assert set(response.headers.keys()) >= HOOKED, f"hooks.add_hooks() is missing for {rule.endpoint}"
            assert "Content-Type" not in response.headers, "the response has no content"


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
