import re

import pytest

from tests.live import new_app

TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}


@pytest.fixture
def browser():
    return new_app().test_client()


def test_the_page_is_public_html(browser):
    response = browser.get("/")

    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert response.text.startswith("<!doctype html>")


def test_the_files_of_the_page_exist(browser):
    paths = re.findall(r'(?:href|src)="(/[^"]+)"', browser.get("/").text)

    assert {path.rpartition(".")[2] for path in paths} == {"css", "js"}
    for path in paths:
        with browser.get(path) as response:
            assert (response.status_code, response.headers["Content-Type"]) == (200, TYPES[path.rpartition(".")[2]])
            assert response.data


def test_the_imported_modules_exist(browser):
    pending, seen = re.findall(r'src="(/static/[^"]+)"', browser.get("/").text), set()

    while pending:
        path = pending.pop()
        with browser.get(path) as response:
            assert response.status_code == 200, path
            imports = re.findall(r'(?:from|import) "(\./[^"]+)"', response.text)
        seen.add(path)
        pending += {f"/static/{name.removeprefix('./')}" for name in imports} - seen


def test_the_page_loads_nothing_from_other_hosts(browser):
    assert not re.findall(r'(?:href|src)="(?:https?:)?//', browser.get("/").text)


@pytest.mark.parametrize("path", ["/static/../settings.py", "/static/%2e%2e/settings.py", "/static/nothing.js"])
def test_no_other_file_is_served(browser, path):
    response = browser.get(path)

    assert (response.status_code, response.json["code"]) == (404, "not_found")
