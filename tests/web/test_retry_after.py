"""The page honours `Retry-After`: it waits for a short one, and does not offer to try again before the end of a long one."""

import time

import pytest
from playwright.sync_api import Page, Route, expect

from tests.web.page import direct_chat, questions, replies, send, stored_roles, transcript, wait_for_reply

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]


class Refusals:
    """Refuses the first request to `url`, and keeps the times of all."""

    def __init__(self, page: Page, url: str, status: int, seconds: int, method: str = "POST") -> None:
        self.times: list[float] = []
        self._response = {
            "status": status,
            "headers": {"Retry-After": str(seconds)},
            "json": {"error": "Too many messages.", "code": "too_many_requests", "request_id": "r-1"},
        }
        self._method = method
        page.route(url, self._answer)

    def _answer(self, route: Route) -> None:
        if route.request.method != self._method:
            return route.fallback()
        self.times.append(time.monotonic())
        if len(self.times) > 1:
            return route.fallback()
        return route.fulfill(**self._response)


@pytest.mark.parametrize("url", ["**/api/conversations", "**/messages"])
def test_a_refused_message_is_sent_again_after_retry_after(visit, url):
    page = visit()
    refusals = Refusals(page, url, 429, 1)

    send(page, "hello")

    expect(replies(page)).to_have_text("hello")
    wait_for_reply(page)
    assert refusals.times[1] - refusals.times[0] >= 0.95
    assert stored_roles(page) == ["user", "assistant"]


def test_a_refused_direct_message_is_sent_again_after_retry_after(visit):
    page = direct_chat(visit())
    refusals = Refusals(page, "**/api/chat/stream", 429, 1)

    send(page, "hello")

    expect(replies(page)).to_have_text("hello")
    assert refusals.times[1] - refusals.times[0] >= 0.95
    expect(questions(page)).to_have_count(1)


def test_a_list_is_loaded_again_after_retry_after(visit, server):
    page = visit("about:blank")
    refusals = Refusals(page, "**/api/agents", 503, 1, "GET")

    page.goto(server.url)

    expect(page.locator("#agent option")).not_to_have_count(0)
    assert refusals.times[1] - refusals.times[0] >= 0.95
    expect(page.locator("#complaint")).to_have_count(0)


@pytest.mark.parametrize("chat", ["conversation", "direct"])
def test_a_message_cannot_be_sent_again_before_a_long_retry_after(visit, chat):
    page = visit()
    if chat == "direct":
        direct_chat(page)
    Refusals(page, "**/api/chat/stream" if chat == "direct" else "**/messages", 429, 121)
    page.clock.install()

    send(page, "hello")

    retry = transcript(page).locator(".error").get_by_role("button", name="Try again")
    expect(transcript(page).locator(".error")).to_contain_text("Too many messages.")
    expect(retry).to_be_disabled()
    page.clock.fast_forward(122_000)
    retry.click()
    expect(replies(page).last).to_have_text("hello")
