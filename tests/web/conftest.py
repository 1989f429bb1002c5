"""One browser and one server for all tests of the page, and a new visitor per test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.chromium import chromium
from tests.live import Server
from tests.missing import missing
from tests.web.page import TIMEOUT_MS, page_settings

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="package")
def axe() -> str:
    """The source of axe-core, which checks a page's accessibility."""
    if not AXE.exists():
        missing("axe-core")
    return AXE.read_text()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page")
    server = Server("gunicorn", folder / "web.log", **page_settings(folder))
    yield server.wait_until_ready()
    server.stop()


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Callable[..., Page]]:
    """`visit(color_scheme="dark")` opens the page as a new visitor. Errors and dialogs in the page fail the test."""
    problems: list[str] = []
    contexts = []

    def open_page(url: str = "", **options: object) -> Page:
        contexts.append(browser.new_context(**options))
        contexts[-1].set_default_timeout(TIMEOUT_MS)
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
        page.goto(url or server.url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
