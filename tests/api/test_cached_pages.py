"""The page and /openapi.json have validators: a browser that has a valid copy gets 304."""

import pytest

from tests.live import new_app

PATHS = ["/", "/openapi.json"]


@pytest.fixture
def browser():
    return new_app().test_client()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_valid_copy_is_not_sent_again(browser, path, method):
    first = browser.open(path, method=method)
    etag = first.headers["ETag"]
    second = browser.open(path, method=method, headers={"If-None-Match": etag})
    other = browser.open(path, method=method, headers={"If-None-Match": '"other"'})

    assert (first.status_code, second.status_code, other.status_code) == (200, 304, 200)
    assert second.data == b""
    for response in (first, second, other):
        assert response.headers["ETag"] == etag
        assert response.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("path", PATHS)
def test_a_304_has_the_security_headers_of_the_response_that_it_stands_for(browser, path):
    first = browser.get(path)
    second = browser.get(path, headers={"If-None-Match": first.headers["ETag"]})

    for name in ("Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy"):
        assert second.headers.get(name) == first.headers.get(name)


def test_the_etag_is_that_of_the_content():
    first, second = new_app().test_client(), new_app().test_client()

    assert [first.get(path).headers["ETag"] for path in PATHS] == [second.get(path).headers["ETag"] for path in PATHS]
    assert len({first.get(path).headers["ETag"] for path in PATHS}) == 2
