"""The page over HTTP/1.1, where a browser opens six connections to a server: one stream a tab, none for what only waits."""

import time

import pytest
from playwright.sync_api import Page, Request, expect

from tests.web.page import WORDS, direct_chat, questions, replies, send, transcript, wait_for_reply

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

MAX_STOP_SECONDS = 5.0
"""With all connections in use it took longer than 20 s."""
SHOW = """(visible) => {
    Object.defineProperty(document, "hidden", { value: !visible, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


class Streams:
    """The event streams that a page holds."""

    def __init__(self, page: Page) -> None:
        self._open: set[Request] = set()
        page.on("request", lambda request: self._open.add(request) if is_stream(request) else None)
        page.on("requestfinished", lambda request: self._open.discard(request))
        page.on("requestfailed", lambda request: self._open.discard(request))

    def __len__(self) -> int:
        return len(self._open)


def is_stream(request: Request) -> bool:
    return "/stream" in request.url and not request.url.endswith("/stop")


def wait_until_open(page: Page, streams: Streams, count: int) -> None:
    deadline = time.monotonic() + 20
    while len(streams) != count and time.monotonic() < deadline:
        page.evaluate("new Promise(requestAnimationFrame)")
    assert len(streams) == count


@pytest.fixture
def page(visit) -> Page:
    return direct_chat(visit())


def test_six_waiting_messages_leave_connections_for_stop_and_a_second_tab(page, server):
    streams = Streams(page)
    send(page, f"/slow 600 {WORDS}")
    expect(replies(page)).to_contain_text("word-0")
    for number in range(1, 7):
        send(page, f"waits {number}")
    waiting = transcript(page).locator(".status:visible")
    expect(waiting.last).to_contain_text("Waiting, number 6 in the queue")
    wait_until_open(page, streams, 1)

    other = page.context.new_page()
    other.goto(f"{server.url}/#/direct")
    expect(replies(other).first).to_contain_text("word-0")
    started_at = time.monotonic()
    page.click("#stop")
    expect(transcript(page).locator(".note").first).to_have_text("Stopped.")
    assert time.monotonic() - started_at < MAX_STOP_SECONDS

    for tab in (page, other):
        expect(replies(tab).last).to_have_text("waits 6")
    expect(questions(page)).to_have_text([f"/slow 600 {WORDS}", *(f"waits {number}" for number in range(1, 7))])


def test_a_waiting_message_can_be_taken_back(page):
    send(page, f"/slow 600 {WORDS}")
    expect(replies(page)).to_contain_text("word-0")
    send(page, "one")
    send(page, "two")
    expect(transcript(page).locator(".status:visible").last).to_contain_text("Waiting, number 2")

    transcript(page).locator(".status:visible").nth(0).get_by_role("button", name="Take back").click()

    expect(transcript(page).locator(".status:visible").last).to_contain_text("Waiting, number 1")
    page.click("#stop")
    expect(replies(page).last).to_have_text("two")


def test_a_hidden_tab_holds_no_stream_and_resumes_when_it_is_shown(page):
    streams = Streams(page)
    send(page, f"/slow 3 {WORDS}")
    expect(replies(page)).to_contain_text("word-3")

    page.evaluate(SHOW, False)
    wait_until_open(page, streams, 0)
    page.evaluate(SHOW, True)

    expect(replies(page)).to_have_text(WORDS)
    wait_for_reply(page)
    expect(transcript(page).locator(".note:visible")).to_have_count(0)
    expect(questions(page)).to_have_count(1)


def test_a_hidden_conversation_holds_no_stream_and_resumes_when_it_is_shown(visit):
    page = visit()
    streams = Streams(page)
    text = " ".join([WORDS] * 3)
    send(page, text)
    expect(replies(page)).to_contain_text("word-3")

    page.evaluate(SHOW, False)
    wait_until_open(page, streams, 0)
    page.evaluate(SHOW, True)

    expect(replies(page)).to_have_text(text)
    wait_for_reply(page)
    expect(transcript(page).locator(".note:visible")).to_have_count(0)


def test_a_chat_that_is_not_shown_holds_no_stream(page):
    streams = Streams(page)
    send(page, f"/slow 3 {WORDS}")
    expect(replies(page)).to_contain_text("word-3")

    page.locator("#new").click()
    wait_until_open(page, streams, 0)
    send(page, WORDS * 20)
    expect(replies(page)).to_contain_text("word-3")
    assert len(streams) == 1
    page.get_by_role("link", name="Direct chat").click()

    expect(replies(page)).to_have_text(WORDS)
    expect(questions(page)).to_have_text(f"/slow 3 {WORDS}")
