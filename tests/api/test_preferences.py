import json

import pytest
import responses

from tests.api.engine_requests import ENGINE, ROUTES, client, code, send
from tests.live import ADA

ENGINE_URL = ENGINE + ROUTES["preferences"].engine_path


@pytest.fixture(scope="module")
def browser():
    return client()


def put(browser, body: bytes, content_type: str = "application/json"):
    return browser.put("/api/preferences", data=body, headers=ADA, content_type=content_type)


@responses.activate
def test_preferences_are_passed_on(browser):
    responses.get(ENGINE_URL, json={"response_language": "sw"})

    assert send(browser, "preferences").get_json() == {"response_language": "sw"}


@responses.activate
def test_an_unknown_user_has_no_preferences(browser):
    responses.get(ENGINE_URL, status=404)

    response = send(browser, "preferences")

    assert (response.status_code, response.get_json()) == (200, {})


@responses.activate
def test_only_known_preferences_are_sent_to_the_engine(browser):
    responses.put(ENGINE_URL, json={"response_language": "de"})

    response = put(browser, b'{"response_language": "de", "user_id": "eve", "org": "evil"}')

    assert (response.status_code, response.get_json()) == (200, {"response_language": "de"})
    assert json.loads(responses.calls[0].request.body) == {"response_language": "de"}


@responses.activate
def test_an_empty_update_reads_the_preferences(browser):
    responses.get(ENGINE_URL, json={"response_language": "sw"})

    response = put(browser, b"{}")

    assert (response.status_code, response.get_json()) == (200, {"response_language": "sw"})
    assert [call.request.method for call in responses.calls] == ["GET"]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"null",
        b"[]",
        b'"en"',
        b'{"response_language": null}',
        b'{"response_language": ""}',
        b'{"response_language": "e"}',
        b'{"response_language": "eng"}',
        b'{"response_language": "EN"}',
        b'{"response_language": "e1"}',
        b'{"response_language": "en\\n"}',
        b'{"response_language": " en"}',
        b'{"response_language": "\xc3\xa9\xc3\xa9"}',
        b'{"response_language": 5}',
        b'{"response_language": ["en"]}',
        b'{"response_language": "\xff\xff"}',
        b'{"response_language": "en", "more": NaN}',
    ],
)
@responses.activate
def test_an_invalid_language_is_refused_without_a_request(browser, body):
    assert code(put(browser, body)) == (400, "invalid_request")
    assert not responses.calls


@responses.activate
def test_a_body_that_is_not_json_is_refused(browser):
    assert code(put(browser, b'{"response_language": "en"}', "text/plain")) == (415, "unsupported_media_type")
    assert not responses.calls


@responses.activate
def test_an_unsupported_language_is_a_bad_request(browser):
    responses.put(ENGINE_URL, status=400, json={"detail": "Unsupported language xx; try en"})

    response = put(browser, b'{"response_language": "xx"}')

    assert code(response) == (400, "invalid_request")
    assert "Unsupported" not in response.get_data(as_text=True)
