"""No script from an answer ever runs, in a real browser."""

import json

import pytest
from playwright.sync_api import expect

from tests.chromium import chromium
from tests.live import ROOT

pytestmark = pytest.mark.live

PAYLOADS = [text for text in json.loads((ROOT / "tests/cases/payloads.json").read_text()) if "\0" not in text]
"""A message with a NUL is refused before it gets anywhere."""
DEADLINE = 60_000


@pytest.mark.timeout(240)
def test_no_script_from_an_answer_ever_runs(start):
    server = start(AUTH_MODE="anonymous", ECHO_WORD_SECONDS="0", MESSAGES_PER_MINUTE="100000")
    problems: list[str] = []

    with chromium() as browser:
        page = browser.new_page()
        page.on("dialog", lambda dialog: (problems.append(f"it ran: {dialog.message}"), dialog.dismiss()))
        page.on("console", lambda line: problems.append(line.text) if line.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url) if not request.url.startswith(server.url) else None)
        page.goto(f"{server.url}/", timeout=DEADLINE)
        for number, payload in enumerate(PAYLOADS, 1):
            page.fill("#text", payload)
            page.press("#text", "Enter")
            expect(page.locator("#log .answer")).to_have_count(number, timeout=DEADLINE)
            expect(page.locator("#log .answer").last).to_have_text(payload, timeout=DEADLINE)

        assert page.locator("#log li *").count() == 0, "an answer is text and nothing else"
        assert page.locator("#log > :not(li)").count() == 0
    assert [problem for problem in problems if not problem.startswith("data:")] == []
