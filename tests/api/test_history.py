import json
from urllib.parse import parse_qs

import pytest
import responses

from tests.api.engine_requests import ENGINE, KEY, ROUTES, Route, client, code, query, send
from tests.live import ADA
from tests.wire_server import WireServer, reply

ENGINE_URL = ENGINE + ROUTES["history"].engine_path


def entry(number: int) -> dict:
    return {"user_message": f"m{number}", "assistant_response": f"a{number}", "created_at": "2026-01-01T00:00:00Z"}


class Engine:
    """An engine whose user has `total` turns. `pages`: limit and offset of each request."""

    def __init__(self, total: int) -> None:
        self.pages: list[tuple[int, int]] = []
        self._entries = [entry(number) for number in range(total)]
        responses.add_callback(responses.GET, ENGINE_URL, self._respond)

    def _respond(self, request):
        page = {name: int(values[0]) for name, values in parse_qs(request.url.partition("?")[2]).items()}
        limit, offset = page["limit"], page["offset"]
        self.pages.append((limit, offset))
        content = {"user_id": "ada", "entries": self._entries[offset : offset + limit], "total_count": len(self._entries)}
        return 200, {}, json.dumps(content | page)


@pytest.fixture(scope="module")
def browser():
    return client()


def history(browser, **page):
    return browser.get("/api/chat/history", query_string=page, headers=ADA)


def numbers(response) -> list[int]:
    return [int(turn["user_message"][1:]) for turn in response.get_json()["entries"]]


@responses.activate
def test_turns_are_passed_on_unchanged():
    engine = Engine(2)

    response = history(client())

    assert response.status_code == 200
    assert response.get_json() == {
        "user_id": "ada",
        "entries": [entry(0), entry(1)],
        "total_count": 2,
        "limit": 50,
        "offset": 0,
    }
    assert engine.pages == [(50, 0)]
    assert responses.calls[0].request.headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ({}, (50, 0)),
        ({"limit": "7", "offset": "3"}, (7, 3)),
        ({"limit": "0"}, (1, 0)),
        ({"limit": "-5"}, (1, 0)),
        ({"limit": "51"}, (50, 0)),
        ({"limit": "999999999999999"}, (50, 0)),
        ({"offset": "1000000000"}, (50, 10**9)),
        ({"order": "oldest"}, (50, 0)),
    ],
)
@responses.activate
def test_limit_is_clamped(browser, page, expected):
    engine = Engine(100)

    assert history(browser, **page).status_code == 200

    assert engine.pages == [expected]


@pytest.mark.parametrize(
    "page",
    [
        {"limit": ""},
        {"limit": "x"},
        {"limit": "1.5"},
        {"limit": "٣"},
        {"limit": "1 "},
        {"limit": "9" * 16},
        {"offset": "-1"},
        {"offset": "1000000001"},
        {"offset": "x"},
        {"offset": ""},
        {"order": "Newest"},
        {"order": ""},
        {"order": "newest", "offset": "-1"},
    ],
    ids=str,
)
@responses.activate
def test_an_invalid_page_is_refused_without_a_request(browser, page):
    assert code(history(browser, **page)) == (400, "invalid_request")
    assert not responses.calls


@pytest.mark.parametrize(
    ("total", "page", "expected"),
    [
        (0, {}, []),
        (3, {}, [2, 1, 0]),
        (3, {"limit": "2"}, [2, 1]),
        (3, {"limit": "2", "offset": "2"}, [0]),
        (3, {"offset": "3"}, []),
        (3, {"offset": "99"}, []),
        (120, {"limit": "3"}, [119, 118, 117]),
        (120, {"limit": "3", "offset": "118"}, [1, 0]),
        (120, {"limit": "3", "offset": "120"}, []),
        (120, {}, list(range(119, 69, -1))),
    ],
)
@responses.activate
def test_newest_pages_from_the_end(browser, total, page, expected):
    engine = Engine(total)

    response = history(browser, order="newest", **page)

    assert numbers(response) == expected
    assert response.get_json()["total_count"] == total
    assert len(engine.pages) <= 2


@responses.activate
def test_pages_of_newest_cover_the_whole_history(browser):
    Engine(120)

    pages = [numbers(history(browser, order="newest", limit="17", offset=str(offset))) for offset in range(0, 121, 17)]

    assert [number for page in pages for number in page] == list(range(119, -1, -1))


@responses.activate
def test_extra_entries_of_the_engine_are_dropped(browser):
    content = {"entries": [entry(number) for number in range(9)], "total_count": 9}
    responses.get(ENGINE_URL, json=content)

    assert numbers(history(browser, limit="4")) == [0, 1, 2, 3]
    assert numbers(history(browser, limit="4", order="newest")) == [3, 2, 1, 0]


@pytest.mark.parametrize("order", ["oldest", "newest"])
@responses.activate
def test_an_unknown_user_has_an_empty_history(browser, order):
    responses.get(ENGINE_URL, status=404, json={"detail": "User not found"})

    response = history(browser, order=order, offset="5")

    assert response.status_code == 200
    assert response.get_json() == {"user_id": "ada", "entries": [], "total_count": 0, "limit": 50, "offset": 5}


@pytest.mark.parametrize(
    ("user", "segment"),
    [
        ("a/../../x?y#z@x.org", "a%2F..%2F..%2Fx%3Fy%23z%40x.org"),
        ("/a//b/", "%2Fa%2F%2Fb%2F"),
        ("a%2fb;c=d&e", "a%252fb%3Bc%3Dd%26e"),
        ("..a", "..a"),
        ("é ø", "%C3%A9%20%C3%B8"),
    ],
)
@pytest.mark.parametrize(
    "route", [ROUTES["history"], ROUTES["preferences"], ROUTES["prefer"]], ids=lambda route: route.method + route.path
)
def test_a_user_id_is_one_path_segment(user, segment, route):
    with WireServer([reply(b'{"entries":[],"total_count":0}')]) as engine:
        response = send(client(engine.url), route, X_Forwarded_User=user.encode().decode("latin-1"))

        assert response.status_code == 200
        leaf = route.engine_path.rpartition("/")[2]
        assert engine.requests[0].path.partition("?")[0] == f"/api/v1/orgs/default/users/{segment}/{leaf}"
        assert query(engine.requests[0]) == ("limit=50&offset=0" if leaf == "history" else "")


def test_the_org_comes_from_the_map_only(tmp_path):
    (tmp_path / "orgs.json").write_text('{"ada": "Word Collective"}')
    route = Route("GET", "/api/chat/history?org=evil&org_id=evil&user_id=eve", None, "")

    with WireServer([reply(b'{"entries":[],"total_count":0}')]) as engine:
        send(client(engine.url, ORG_MAP_FILE=str(tmp_path / "orgs.json")), route, X_Org="evil")

        assert engine.requests[0].path.startswith("/api/v1/orgs/Word%20Collective/users/ada/history?")
