"""Versions of questions and replies in the page."""

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.web.page import WORDS, questions, replies, send, stored_roles, transcript, wait_for_reply

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]


def ask(page: Page, *texts: str) -> None:
    for text in texts:
        send(page, text)
        expect(replies(page).last).to_have_text(text)
        wait_for_reply(page)


def question(page: Page, number: int) -> Locator:
    return transcript(page).locator(".question").nth(number)


def ask_again(page: Page, number: int, text: str) -> None:
    question(page, number).get_by_role("button", name="Edit", exact=True).click()
    page.locator(".edit textarea").fill(text)
    page.get_by_role("button", name="Ask again").click()


def switch(page: Page, message: Locator, name: str) -> None:
    message.get_by_role("button", name=name).press("Enter")


def shows(page: Page, *texts: str) -> None:
    """Each question has a reply of the same text."""
    expect(questions(page)).to_have_text([*texts])
    expect(replies(page)).to_have_text([*texts])


def test_an_edited_question_begins_a_branch_that_survives_a_reload(visit):
    page = visit()
    ask(page, "one", "two", "three")

    ask_again(page, 1, "zwei")
    shows(page, "one", "zwei")
    wait_for_reply(page)
    expect(question(page, 1).locator(".versions")).to_have_text("‹Version 2/2›")
    ask(page, "drei")

    switch(page, question(page, 1), "Previous version")
    shows(page, "one", "two", "three")
    expect(question(page, 1).get_by_role("button", name="Next version")).to_be_focused()
    page.reload()
    shows(page, "one", "two", "three")

    switch(page, question(page, 1), "Next version")
    shows(page, "one", "zwei", "drei")
    page.reload()
    shows(page, "one", "zwei", "drei")
    assert stored_roles(page) == ["user", "assistant"] * 5


def test_the_first_question_has_versions(visit):
    page = visit()
    ask(page, "one")

    for text in ("two", "three"):
        ask_again(page, 0, text)
        shows(page, text)
        wait_for_reply(page)
    expect(question(page, 0)).to_contain_text("3/3")
    expect(question(page, 0).get_by_role("button", name="Next version")).to_be_disabled()
    switch(page, question(page, 0), "Previous version")

    shows(page, "two")
    expect(question(page, 0)).to_contain_text("2/3")


def ask_twice(page: Page) -> None:
    """Asks "one", and then "two" in its place."""
    ask(page, "one")
    ask_again(page, 0, "two")
    shows(page, "two")
    wait_for_reply(page)


def test_a_message_is_added_to_the_branch_that_is_shown(visit):
    page = visit()
    ask_twice(page)
    switch(page, question(page, 0), "Previous version")
    shows(page, "one")

    ask(page, "next")

    shows(page, "one", "next")
    page.reload()
    shows(page, "one", "next")


def test_a_regenerated_reply_is_a_version_of_the_first_one(visit):
    page = visit()
    ask(page, "one")
    answers = transcript(page).locator(".answer:not([hidden])")

    page.get_by_role("button", name="Regenerate").click()
    expect(answers.get_by_text("2/2")).to_be_visible()
    switch(page, answers, "Previous version")
    expect(answers.get_by_text("1/2")).to_be_visible()
    page.reload()

    expect(answers.get_by_text("1/2")).to_be_visible()
    ask(page, "two")
    shows(page, "one", "two")
    switch(page, answers.first, "Next version")
    shows_only_one(page)


def shows_only_one(page: Page) -> None:
    expect(questions(page)).to_have_text(["one"])
    expect(transcript(page).locator(".answer:not([hidden])")).to_contain_text("2/2")


def test_a_switch_is_shown_in_another_tab(visit):
    page = visit()
    ask_twice(page)
    other = page.context.new_page()
    other.goto(page.url)
    shows(other, "two")

    switch(page, question(page, 0), "Previous version")

    for tab in (page, other):
        shows(tab, "one")


def test_versions_are_not_switched_while_a_reply_is_written(visit):
    page = visit()
    ask(page, "one")
    ask_again(page, 0, WORDS)
    expect(replies(page)).to_contain_text("word-3")

    switch(page, question(page, 0), "Previous version")

    expect(page.locator("#complaint")).to_contain_text("A reply is being written.")
    expect(replies(page)).to_have_text(WORDS)
    wait_for_reply(page)
    switch(page, question(page, 0), "Previous version")
    shows(page, "one")


@pytest.mark.slow
def test_two_tabs_edit_and_regenerate_the_same_message_at_once(visit):
    page = visit()
    ask(page, "one")
    other = page.context.new_page()
    other.goto(page.url)
    shows(other, "one")

    for tab, text in ((page, "two"), (other, "three")):
        tab.evaluate("text => (document.querySelector('.question .actions button').click(), text)", text)
        tab.locator(".edit textarea").fill(text)
    for tab in (page, other):
        tab.evaluate("setTimeout(() => document.querySelector('.edit .main').click(), 100)")

    for tab in (page, other):
        wait_for_reply(tab)
        expect(question(tab, 0)).to_contain_text("/3")
        tab.reload()
        expect(question(tab, 0)).to_contain_text("/3")
    assert sorted(stored_roles(page)) == ["assistant"] * 3 + ["user"] * 3


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_versions_are_accessible(visit, axe, scheme, width):
    page = visit(color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce")
    ask(page, "one")
    ask_again(page, 0, "two")
    shows(page, "two")
    wait_for_reply(page)
    page.get_by_role("button", name="Regenerate").click()
    expect(transcript(page).locator(".answer:not([hidden])")).to_contain_text("2/2")
    question(page, 0).get_by_role("button", name="Previous version").focus()
    page.evaluate(axe)

    found = page.evaluate("async () => (await axe.run()).violations.map(({ id, nodes }) => id + nodes.map((n) => n.html))")
    assert found == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    question(page, 0).get_by_role("button", name="Edit", exact=True).click()
    assert page.evaluate("async () => (await axe.run()).violations.map(({ id }) => id)") == []
