"""Nobody gets at what is somebody else's, by any door."""

import re

import pytest

from tests.security.matrix import MATRIX, WORDS, Owner, is_refusal, new_app, routes


@pytest.fixture(scope="module")
def app():
    return new_app()


@pytest.fixture
def owner(app):
    owner = Owner(app)
    yield owner
    owner.post(f"/api/chat/stream/{owner.owned['message_id']}/stop", None)


def test_every_route_is_in_the_matrix(app):
    assert routes(app) == sorted(MATRIX)


def path_of(rule: str, owner: Owner) -> str:
    return re.sub("<([^>]*)>", lambda variable: owner.owned[variable[1]], rule)


@pytest.mark.parametrize("route", MATRIX)
def test_everybody_gets_what_they_may(app, owner, route):
    method, rule = route.split()
    statuses, json, query = MATRIX[route]
    browser = app.test_client(use_cookies=False)

    for headers, status in zip(owner.callers(), statuses, strict=True):
        for knock in ("HEAD", "GET") if method == "GET" else (method,):
            with browser.open(
                path_of(rule, owner) + query.format(**owner.owned), method=knock, json=json, headers=headers
            ) as response:
                assert response.status_code == status, (knock, headers)
                if status >= 400 and knock != "HEAD":
                    assert is_refusal(rule, response.json)
                    assert WORDS not in response.text


def test_what_runs_is_listed_for_its_owner_only(app, owner):
    browser = app.test_client(use_cookies=False)

    listed = [browser.get("/api/chat/active", headers=headers).json["messages"] for headers in owner.callers()[1:]]

    assert [[message["message_id"] for message in messages] for messages in listed] == [[], [], [owner.owned["message_id"]]]


def test_what_others_tried_changed_nothing(app, owner):
    message_id, (_, *others, own) = owner.owned["message_id"], owner.callers()
    browser = app.test_client(use_cookies=False)

    for headers in others:
        assert browser.post(f"/api/chat/stream/{message_id}/stop", headers=headers).status_code == 404

    assert [message["message_id"] for message in browser.get("/api/chat/active", headers=own).json["messages"]] == [message_id]
