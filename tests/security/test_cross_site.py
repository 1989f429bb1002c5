"""Every route that needs a user refuses the requests of other pages, and is not affected by them."""

import re

import pytest

from tests.api.origin_requests import FORGERIES, OWN_ORIGIN, forge
from tests.security.matrix import MATRIX, PUBLIC, Owner, bearer, new_app

PROTECTED = [route for route, row in MATRIX.items() if row != PUBLIC]


@pytest.fixture(scope="module")
def app():
    return new_app(AUTH_JWT_COOKIE="token", TRUSTED_PROXY_HOPS="1")


@pytest.fixture
def owner(app):
    return Owner(app)


@pytest.mark.parametrize("route", PROTECTED)
def test_no_other_page_can_use_a_users_cookie(app, owner, route):
    method, rule = route.split()
    path = re.sub("<([^>]*)>", lambda variable: owner.owned[variable[1]], rule) + MATRIX[route].query.format(**owner.owned)
    cookie = {"Cookie": "token=" + bearer(owner.user, "home")["Authorization"].removeprefix("Bearer ")}

    statuses = {name: forge(app, method, path, cookie | headers).status_code for name, headers in FORGERIES.items()}

    assert {name: status for name, status in statuses.items() if status != 403} == {}
    with forge(app, method, path, cookie | {"Origin": OWN_ORIGIN}, MATRIX[route].json) as response:
        assert response.status_code == MATRIX[route].statuses[-1], "our own page may"
