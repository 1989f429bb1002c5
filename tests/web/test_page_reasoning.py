"""The chat page: replies that the model's own limit cut short, and what the model says to itself."""

import json

import pytest
from playwright.sync_api import Page, Route, expect

from tests.web.page import direct_chat, replies, send, transcript, wait_for_reply
from tests.web.test_accessible import violations

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

CUT_SHORT = "Cut short: the reply reached the model's limit."
TEXT = "In the beginning"
REASONING = [{"type": "reasoning", "text": "Which "}, {"type": "reasoning", "text": "**verse**?"}]


def test_a_truncated_reply_has_a_note_and_its_reasoning_is_collapsed(visit, axe):
    page = direct_chat(visit())
    page.route("**/api/chat/stream", add_reasoning)

    send(page, TEXT)
    wait_for_reply(page)

    expect(replies(page)).to_have_text(TEXT)
    expect(transcript(page).locator(".note")).to_have_text(CUT_SHORT)
    expect(page.locator("#announcer")).to_have_text(f"Answer: {TEXT} {CUT_SHORT}")
    reasoning = transcript(page).locator("details")
    expect(reasoning.locator("p")).to_be_hidden()
    reasoning.get_by_text("Reasoning").press("Enter")
    expect(reasoning.locator("p")).to_have_text("Which **verse**?")
    page.evaluate(axe)
    assert violations(page) == []


def test_a_truncated_reply_in_a_conversation_has_a_note(visit):
    page = visit()
    page.route("**/api/conversations/*/stream*", truncate)

    send(page, TEXT)
    wait_for_reply(page)

    expect(replies(page)).to_have_text(TEXT)
    expect(transcript(page).locator(".note")).to_have_text(CUT_SHORT)


def add_reasoning(route: Route) -> None:
    """The server's own reply, with reasoning before it and truncated, so that page and server have the same messages."""
    response = route.fetch()
    reasoning = "".join(f"data: {json.dumps(event)}\n\n" for event in REASONING)
    body = response.text().replace('"type":"complete","response":{', '"type":"complete","response":{"truncated":true,')
    route.fulfill(response=response, body=reasoning + body)


def truncate(route: Route) -> None:
    response = route.fetch()
    route.fulfill(response=response, body=response.text().replace('{"messageId":', '{"truncated": true, "messageId":'))


def test_a_whole_reply_has_no_note(visit):
    page: Page = direct_chat(visit())

    send(page, "hello")
    wait_for_reply(page)

    expect(transcript(page).locator(".note:visible")).to_have_count(0)
    expect(transcript(page).locator("details")).to_have_count(0)
