"""The chat page: replies that the model's own limit cut short, and what the model says to itself."""

import json

import pytest
from playwright.sync_api import Page, Route, expect

from tests.web.page import direct_chat, replies, send, transcript, wait_for_reply
from tests.web.test_accessible import violations

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

CUT_SHORT = "Cut short: the reply reached the model's limit."
EVENTS = [
    {"type": "reasoning", "text": "Which "},
    {"type": "reasoning", "text": "**verse**?"},
    {"type": "progress", "text": "In the beginning"},
    {"type": "complete", "response": {"responses": ["In the beginning"], "truncated": True}},
]


def test_a_truncated_reply_has_a_note_and_its_reasoning_is_collapsed(visit, axe):
    page = direct_chat(visit())
    page.route("**/api/chat/stream", send_reasoning)

    send(page, "hello")
    wait_for_reply(page)

    expect(replies(page)).to_have_text("In the beginning")
    expect(transcript(page).locator(".note")).to_have_text(CUT_SHORT)
    expect(page.locator("#announcer")).to_have_text(f"Answer: In the beginning {CUT_SHORT}")
    reasoning = transcript(page).locator("details")
    expect(reasoning.locator("p")).to_be_hidden()
    reasoning.get_by_text("Reasoning").press("Enter")
    expect(reasoning.locator("p")).to_have_text("Which **verse**?")
    page.evaluate(axe)
    assert violations(page) == []


def test_a_truncated_reply_in_a_conversation_has_a_note(visit):
    page = visit()
    page.route("**/api/conversations/*/stream*", send_truncated)

    send(page, "hello")
    wait_for_reply(page)

    expect(replies(page)).to_have_text("In the beginning")
    expect(transcript(page).locator(".note")).to_have_text(CUT_SHORT)


def send_reasoning(route: Route) -> None:
    body = "".join(f"data: {json.dumps(event)}\nid: {number}-0\n\n" for number, event in enumerate(EVENTS, start=1))
    route.fulfill(status=200, content_type="text/event-stream", body=body, headers={"X-Message-ID": "m-1"})


def send_truncated(route: Route) -> None:
    done = {"messageId": "6f1f1c8e-2c0a-4d0e-9d0f-0d0f4f6a7b11", "truncated": True}
    body = f'event: token\ndata: {{"token": "In the beginning"}}\nid: 1-0\n\nevent: done\ndata: {json.dumps(done)}\nid: 2-0\n\n'
    route.fulfill(status=200, content_type="text/event-stream", body=body)


def test_a_whole_reply_has_no_note(visit):
    page: Page = direct_chat(visit())

    send(page, "hello")
    wait_for_reply(page)

    expect(transcript(page).locator(".note:visible")).to_have_count(0)
    expect(transcript(page).locator("details")).to_have_count(0)
