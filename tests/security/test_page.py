"""Scripts in replies never run, in a real browser."""

import json

import pytest
from playwright.sync_api import Page, expect

from tests.chromium import chromium
from tests.live import ROOT

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

PAYLOADS = [text for text in json.loads((ROOT / "tests/cases/payloads.json").read_text()) if "\0" not in text]
"""Without those that contain NUL: such messages are refused."""
MILLISECONDS = 60_000
END = "and no script has run"
TAGS = {"OL", "LI", "UL", "DIV", "SPAN", "P", "BUTTON", "H2", "H3", "H4", "H5", "H6", "STRONG", "EM", "S", "CODE", "PRE"}
TAGS |= {"FIGURE", "FIGCAPTION", "BLOCKQUOTE", "HR", "A", "TABLE", "THEAD", "TBODY", "TR", "TH", "TD"}

WRITE_IN_CHUNKS = """async ([payloads, end]) => {
    const { Markdown } = await import("/static/markdown.js");
    for (const size of [1, 3, 1e9]) for (const payload of payloads) {
        const item = document.querySelector(".log").appendChild(document.createElement("li"));
        const markdown = new Markdown(item);
        for (let at = 0; at < payload.length; at += size) {
            markdown.write(payload.slice(at, at + size));
            await null;
        }
        markdown.end();
    }
}"""
ELEMENTS = """() => [...document.querySelectorAll(".log *")].map((element) => [
    element.tagName, [...element.attributes].map(({ name, value }) => [name, value]),
])"""


@pytest.fixture
def problems() -> list[str]:
    return []


@pytest.fixture
def page(start, tmp_path, problems):
    options = {"ECHO_WORD_SECONDS": "0", "DATABASE_URL": f"sqlite:///{tmp_path}/chat.db"}
    server = start(AUTH_MODE="anonymous", **options)
    with chromium() as browser:
        page = browser.new_page()
        page.on("dialog", lambda dialog: (problems.append(f"a script ran: {dialog.message}"), dialog.dismiss()))
        page.on("console", lambda line: problems.append(line.text) if line.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url) if not request.url.startswith(server.url) else None)
        page.goto(f"{server.url}/", timeout=MILLISECONDS)
        yield page


def test_no_script_in_a_reply_runs(page, problems):
    everything = "\n\n".join([*PAYLOADS, END])

    for chat in ("#direct", "#new"):
        page.click(chat)
        if chat == "#new":
            expect(page.locator("#tools")).to_be_visible(timeout=MILLISECONDS)
        page.fill("#text", everything)
        page.press("#text", "Enter")
        log = page.locator(".transcript:not([hidden]) .log")
        expect(log.locator(".answer .text")).to_contain_text(END, timeout=MILLISECONDS)
        expect(log.locator(".answer").get_by_role("button", name="Copy answer")).to_be_attached(timeout=MILLISECONDS)
        assert log.locator(".question .text").evaluate("text => text.textContent") == everything
        assert log.locator(".question .text *").count() == 0, "a question is shown as plain text"
        assert_inert(page)
    assert [problem for problem in problems if not problem.startswith("data:")] == []


def test_no_payload_runs_however_it_is_split(page, problems):
    page.evaluate(WRITE_IN_CHUNKS, [PAYLOADS, END])

    assert page.locator(".log > li").count() == 3 * len(PAYLOADS)
    assert_inert(page)
    assert [problem for problem in problems if not problem.startswith("data:")] == []


def assert_inert(page: Page) -> None:
    for tag, attributes in page.evaluate(ELEMENTS):
        assert tag in TAGS
        for name, value in attributes:
            assert not name.startswith("on")
            assert name not in {"style", "src", "srcdoc", "action", "formaction", "id"}
            assert name != "href" or value.startswith(("http://", "https://", "mailto:"))
