import re

import pytest

from tests.live import new_app

TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}


@pytest.fixture
def browser():
    return new_app().test_client()


def test_the_page_is_html_for_anybody(browser):
    response = browser.get("/")

    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert response.text.startswith("<!doctype html>")


def test_every_file_the_page_names_is_there(browser):
    names = re.findall(r'(?:href|src)="(/[^"]+)"', browser.get("/").text)

    assert {name.rpartition(".")[2] for name in names} == {"css", "js"}
    for name in names:
        with browser.get(name) as response:
            assert (response.status_code, response.headers["Content-Type"]) == (200, TYPES[name.rpartition(".")[2]])
            assert response.data


def test_every_module_the_scripts_import_is_there(browser):
    wanted, seen = re.findall(r'src="(/static/[^"]+)"', browser.get("/").text), set()

    while wanted:
        name = wanted.pop()
        with browser.get(name) as response:
            assert response.status_code == 200, name
            imports = re.findall(r'(?:from|import) "(\./[^"]+)"', response.text)
        seen.add(name)
        wanted += [path for path in (f"/static/{one.removeprefix('./')}" for one in imports) if path not in seen]


def test_the_page_names_nothing_from_elsewhere(browser):
    assert not re.findall(r'(?:href|src)="(?:https?:)?//', browser.get("/").text)


@pytest.mark.parametrize("path", ["/static/../settings.py", "/static/%2e%2e/settings.py", "/static/nothing.js"])
def test_no_other_file_is_served(browser, path):
    response = browser.get(path)

    assert (response.status_code, response.json["code"]) == (404, "not_found")
