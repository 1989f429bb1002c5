"""No route gives access to the objects of another user or org."""

import re

import pytest

from tests.security.matrix import MATRIX, PRIVATE_TEXT, Owner, is_refusal, new_app, routes


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
def test_every_caller_gets_the_status_of_the_matrix(app, owner, route):
    method, rule = route.split()
    statuses, json, query = MATRIX[route]
    browser = app.test_client(use_cookies=False)

    for headers, status in zip(owner.callers(), statuses, strict=True):
        for sent_method in ("HEAD", "GET") if method == "GET" else (method,):
            with browser.open(
                path_of(rule, owner) + query.format(**owner.owned), method=sent_method, json=json, headers=headers
            ) as response:
                assert response.status_code == status, (sent_method, headers)
                if status >= 400 and sent_method != "HEAD":
                    assert is_refusal(rule, response.json)
                    assert PRIVATE_TEXT not in response.text


def test_running_messages_are_listed_for_their_owner_only(app, owner):
    browser = app.test_client(use_cookies=False)

    listed = [browser.get("/api/chat/active", headers=headers).json["messages"] for headers in owner.callers()[1:]]

    assert [[message["message_id"] for message in messages] for messages in listed] == [[], [], [owner.owned["message_id"]]]


def test_refused_requests_change_nothing(app, owner):
    message_id, (_, *others, own) = owner.owned["message_id"], owner.callers()
    browser = app.test_client(use_cookies=False)

    for headers in others:
        assert browser.post(f"/api/chat/stream/{message_id}/stop", headers=headers).status_code == 404

    assert [message["message_id"] for message in browser.get("/api/chat/active", headers=own).json["messages"]] == [message_id]
