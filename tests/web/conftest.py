"""One browser and one server for all tests of the page, and a new visitor for each of them."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.chromium import chromium
from tests.live import Server
from tests.web.page import MILLISECONDS, settings


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("page")
    server = Server("gunicorn", place / "web.log", **settings(place))
    yield server.wait_until_ready()
    server.stop()


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Callable[..., Page]]:
    """`visit(color_scheme="dark")`: the page, as somebody sees it who was never here. What goes wrong in it fails the test."""
    problems: list[str] = []
    contexts = []

    def begin(url: str = "", **options: object) -> Page:
        contexts.append(browser.new_context(**options))
        contexts[-1].set_default_timeout(MILLISECONDS)
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
        page.goto(url or server.url)
        return page

    yield begin
    for context in contexts:
        context.close()
    assert problems == []
