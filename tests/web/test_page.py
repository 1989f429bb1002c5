"""The chat page, used in a real browser."""

import re

import pytest
from playwright.sync_api import expect

from tests.engine.agents.openai_server import BEGIN, HEAD, settings_of, whole, words
from tests.live import eventually
from tests.web.page import (
    WORDS,
    answers,
    conversation_id,
    conversations,
    direct_chat,
    kept,
    log,
    questions,
    root,
    say,
    settings,
    wait_until_answered,
)
from tests.wire_server import HANG, WireServer

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

DURATION = """audio => new Promise((done) => {
    audio.onloadedmetadata = () => done(audio.duration);
    audio.preload = "metadata";
    audio.load();
})"""
MAX_BYTES = 90_000


def test_a_newcomer_sees_the_first_reply_after_90_kb_and_nothing_from_elsewhere(visit, server):
    page = visit("about:blank")
    answered = []
    page.on("response", lambda response: answered.append(response))
    page.goto(server.url)

    say(page, "Hello, streaming world")
    expect(answers(page)).to_have_text("Hello, streaming world")
    wait_until_answered(page)

    assert all(response.url.startswith((server.url, "data:")) for response in answered)
    loaded = [response.body() for response in answered if response.url.startswith(server.url) and "/api/" not in response.url]
    assert sum(map(len, loaded)) < MAX_BYTES


def test_an_answer_is_markdown_and_what_was_asked_is_text(visit):
    page = visit()

    say(page, "# Title\n\nSome **bold** `code`\n\n- one\n- two\n\n```python\nprint(1)\n```\n\n[x](https://example.org)")
    wait_until_answered(page)

    expect(questions(page)).to_contain_text("# Title")
    answer = answers(page)
    expect(answer.locator("h2")).to_have_text("Title")
    expect(answer.locator("strong")).to_have_text("bold")
    expect(answer.locator("ul li")).to_have_text(["one", "two"])
    expect(answer.locator("pre code")).to_have_text("print(1)")
    expect(answer.locator("a")).to_have_attribute("rel", "noopener noreferrer")
    expect(answer.get_by_role("button", name="Copy code")).to_be_visible()


def test_stop_ends_an_answer_and_keeps_what_was_said(visit):
    page = direct_chat(visit())

    say(page, f"/slow 600 {WORDS}")
    expect(answers(page)).to_contain_text("word-0")
    page.keyboard.press("Escape")

    expect(log(page).locator(".note")).to_have_text("Stopped.")
    expect(answers(page)).to_contain_text("word-0")
    expect(page.locator("#stop")).to_be_hidden()


def test_a_message_waits_behind_another_and_says_so(visit):
    page = direct_chat(visit())

    say(page, f"/slow 600 {WORDS}")
    expect(answers(page).first).to_contain_text("word-0")
    say(page, "and then this")
    expect(log(page).locator(".status:visible")).to_contain_text("Waiting, number 1 in the queue")
    page.click("#stop")

    expect(answers(page).nth(1)).to_have_text("and then this")


def test_what_fails_can_be_tried_again(visit):
    page = direct_chat(visit())

    say(page, "/error")
    expect(log(page).locator(".error")).to_contain_text("The assistant could not answer.")
    page.get_by_role("button", name="Try again").click()

    expect(log(page).locator(".error")).to_have_count(2)
    expect(questions(page)).to_have_text(["/error", "/error"])


def test_shift_enter_is_a_new_line(visit):
    page = visit()

    page.fill("#text", "one")
    page.press("#text", "Shift+Enter")
    page.keyboard.type("two")
    page.press("#text", "Enter")

    expect(questions(page)).to_have_text("one\ntwo")


def test_a_reload_in_mid_answer_goes_on_where_it_was(visit):
    page = direct_chat(visit())
    say(page, f"/slow 3 {WORDS}")
    expect(answers(page)).to_contain_text("word-3")

    page.reload()

    expect(answers(page)).to_have_text(WORDS)
    expect(questions(page)).to_have_text(f"/slow 3 {WORDS}")


def test_another_tab_sees_the_same(visit):
    page = direct_chat(visit())
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.get_by_role("heading", name="Direct chat")).to_be_visible()

    say(page, f"/slow 1 {WORDS}")

    for tab in (page, other):
        expect(questions(tab)).to_have_text(f"/slow 1 {WORDS}")
        expect(answers(tab)).to_have_text(WORDS)


def test_older_turns_are_loaded_as_one_scrolls_to_them(visit):
    page = direct_chat(visit())
    for number in range(45):
        content = {"message": f"message {number}"}
        said = page.request.post(f"{root(page)}api/chat", data=content, headers={"Origin": root(page)[:-1]})
        assert said.ok, said.text()
    page.reload()
    expect(answers(page).last).to_have_text("message 44")
    assert answers(page).count() < 45

    expect(answers(page).last).to_be_in_viewport()
    while answers(page).count() < 45:
        before = answers(page).count()
        log(page).locator("..").evaluate("scroller => scroller.scrollTo(0, 0)")
        expect(answers(page).nth(before)).to_be_attached()

    expect(questions(page)).to_have_text([f"message {number}" for number in range(45)])


def test_a_voice_message_is_recorded_sent_and_answered_by_voice(visit):
    page = direct_chat(visit(permissions=["microphone"]))

    page.get_by_role("button", name="Record a voice message").click()
    expect(page.locator("#hint")).to_contain_text("Recording.")
    page.click("#send")

    expect(questions(page)).to_have_text("Voice message")
    audio = log(page).locator("audio")
    expect(audio).to_be_visible()
    assert audio.evaluate(DURATION) > 0


def test_a_conversation_is_kept_renamed_and_deleted(visit):
    page = visit()
    expect(page.get_by_role("button", name="Rename")).to_be_hidden()
    say(page, "Where is Bethlehem?")
    expect(answers(page)).to_have_text("Where is Bethlehem?")
    expect(conversations(page)).to_have_text("Where is Bethlehem?")
    wait_until_answered(page)
    assert kept(page) == ["user", "assistant"]

    page.get_by_role("button", name="Rename").click()
    page.get_by_role("textbox", name="Title").fill("Bethlehem")
    page.keyboard.press("Enter")
    expect(conversations(page)).to_have_text("Bethlehem")
    page.reload()
    expect(page.get_by_role("heading", name="Bethlehem")).to_be_visible()
    expect(answers(page)).to_have_text("Where is Bethlehem?")

    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="New conversation")).to_be_visible()
    expect(conversations(page)).to_have_count(0)


def test_an_edited_message_is_answered_anew_and_its_original_one_click_away(visit):
    page = visit()
    say(page, "Who was Saul?")
    wait_until_answered(page)
    question = log(page).locator(".question")

    question.get_by_role("button", name="Edit", exact=True).click()
    page.locator(".edit textarea").fill("Who was Paul?")
    page.get_by_role("button", name="Save and ask again").click()
    expect(answers(page)).to_have_text("Who was Paul?")
    expect(page.get_by_text("2 of 2")).to_be_visible()

    page.reload()
    expect(questions(page)).to_have_text("Who was Paul?")
    question.get_by_role("button", name="Edited").click()
    expect(questions(page)).to_have_text("Who was Saul?")
    page.get_by_role("button", name="Reply before").click()
    expect(answers(page)).to_have_text("Who was Saul?")
    assert kept(page) == ["user", "assistant", "assistant"]


def test_another_agent_replies_anew(visit, start, tmp_path):
    with WireServer(whole("For God ", "so loved the world.")) as model:
        page = visit(start(**settings(tmp_path), **settings_of(model)).url)
        page.select_option("#agent", "openai")
        say(page, "What is written?")
        expect(answers(page)).to_have_text("For God so loved the world.")
        wait_until_answered(page)

        page.select_option("#agent", "echo")
        page.get_by_role("button", name="Regenerate").click()
        expect(answers(page)).to_have_text("What is written?")
        expect(page.get_by_text("2 of 2")).to_be_visible()

    assert kept(page) == ["user", "assistant", "assistant"]


def test_a_conversation_is_created_by_its_first_message(visit):
    page = visit()
    expect(page.get_by_role("heading", name="New conversation")).to_be_visible()
    expect(page.locator("#persistence")).to_have_text("Replies are finished and kept when you close this page.")
    page.get_by_role("link", name="Direct chat").click()
    expect(page.locator("#persistence")).to_be_hidden()
    page.locator("#new").click()
    expect(conversations(page)).to_have_count(0)

    say(page, "first")
    wait_until_answered(page)
    first = conversation_id(page)
    page.locator("#new").click()
    expect(questions(page)).to_have_count(0)
    say(page, "second")
    wait_until_answered(page)

    expect(conversations(page)).to_have_text(["second", "first"])
    assert first != conversation_id(page)
    page.go_back()
    expect(questions(page)).to_have_text("first")


def test_a_stopped_reply_is_not_kept_and_may_be_asked_for_again(visit):
    page = visit()
    say(page, WORDS * 20)
    expect(answers(page)).to_contain_text("word-3")
    page.keyboard.press("Escape")
    expect(log(page).locator(".note")).to_have_text("Stopped, and not kept.")

    page.reload()
    expect(page.get_by_role("button", name="Ask for a reply")).to_be_visible()
    assert kept(page) == ["user"]

    page.get_by_role("button", name="Ask for a reply").click()
    expect(answers(page)).to_contain_text("word-3")


def test_a_reload_in_mid_reply_goes_on_with_it(visit):
    page = visit()
    say(page, WORDS)
    expect(answers(page)).to_contain_text("word-3")
    conversation_id(page)

    page.reload()

    expect(answers(page)).to_have_text(WORDS)
    wait_until_answered(page)
    expect(log(page).locator(".note:visible")).to_have_count(0)
    assert kept(page) == ["user", "assistant"]


def test_a_reload_in_mid_regeneration_goes_on_with_it(visit, start, tmp_path):
    with WireServer(whole("hello"), [HEAD, BEGIN, *words("Once ", "more"), HANG]) as model:
        page = visit(start(**settings(tmp_path), **settings_of(model)).url)
        page.select_option("#agent", "openai")
        say(page, "Greet me")
        wait_until_answered(page)
        page.get_by_role("button", name="Regenerate").click()
        expect(answers(page)).to_have_text("Once more")

        page.reload()
        expect(answers(page)).to_have_text("Once more")
        page.get_by_role("button", name="Stop").click()

        expect(answers(page)).to_have_text(["hello", "Once more"])
        assert model.wait_for(lambda: model.hung_up)
    expect(log(page).locator(".note:visible")).to_have_text("Stopped, and not kept.")
    assert kept(page) == ["user", "assistant"]


def test_a_reply_is_finished_when_the_page_is_closed(visit, server):
    page = visit()
    context = page.context
    say(page, WORDS)
    expect(answers(page)).to_contain_text("word-3")
    address = page.url
    page.close()

    again = context.new_page()
    again.goto(server.url)
    assert eventually(lambda: kept(again, address.rpartition("/")[2]) == ["user", "assistant"], 20)
    again.goto(address)

    expect(answers(again)).to_have_text(WORDS)
    expect(again.locator("#stop")).to_be_hidden()


@pytest.mark.parametrize("opened", ["before", "in mid-reply"])
def test_two_tabs_show_the_same_reply(visit, opened):
    page = visit()
    say(page, "hello")
    wait_until_answered(page)
    other = page.context.new_page()
    if opened == "before":
        other.goto(page.url)
        expect(questions(other)).to_have_text("hello")
    say(page, WORDS)
    expect(answers(page).last).to_contain_text("word-3")
    if opened != "before":
        other.goto(page.url)

    for tab in (page, other):
        expect(questions(tab)).to_have_text(["hello", WORDS])
        expect(answers(tab)).to_have_text(["hello", WORDS])
        wait_until_answered(tab)
    assert kept(page) == ["user", "assistant", "user", "assistant"]


def test_stop_in_another_tab_stops_the_reply_in_every_tab(visit):
    page = visit()
    say(page, WORDS * 20)
    expect(answers(page)).to_contain_text("word-3")
    other = page.context.new_page()
    other.goto(page.url)
    expect(answers(other)).to_contain_text("word-3")

    other.get_by_role("button", name="Stop").click()

    for tab in (page, other):
        expect(log(tab).locator(".note")).to_have_text("Stopped, and not kept.")
        expect(tab.locator("#stop")).to_be_hidden()
    assert kept(page) == ["user"]

    page.get_by_role("button", name="Try again").click()
    for tab in (page, other):
        expect(answers(tab)).to_contain_text("word-3")
        expect(tab.locator("#stop")).to_be_visible()


def test_an_edit_is_shown_in_another_tab_and_its_reply_followed(visit):
    page = visit()
    say(page, "hello")
    wait_until_answered(page)
    other = page.context.new_page()
    other.goto(page.url)
    expect(questions(other)).to_have_text("hello")

    log(page).locator(".question").get_by_role("button", name="Edit", exact=True).click()
    page.locator(".edit textarea").fill(WORDS)
    page.get_by_role("button", name="Save and ask again").click()

    for tab in (page, other):
        expect(questions(tab)).to_have_text(WORDS)
        expect(answers(tab)).to_have_text(WORDS)
        expect(tab.get_by_text("2 of 2")).to_be_visible()


def test_a_reply_goes_on_while_another_chat_is_looked_at_and_its_stream_is_closed(visit):
    page = visit()
    text = " ".join([WORDS] * 5)
    say(page, text)
    expect(answers(page)).to_contain_text("word-3")

    with page.expect_event("requestfailed", lambda request: "/stream?" in request.url):
        page.get_by_role("link", name="Direct chat").click()
    page.go_back()

    expect(answers(page)).to_have_text(text)
    expect(questions(page)).to_have_text(text)
    wait_until_answered(page)
    assert kept(page) == ["user", "assistant"]


def test_a_message_is_answered_though_another_chat_is_looked_at_at_once(visit):
    page = visit()
    say(page, "hello")
    page.get_by_role("link", name="Direct chat").click()
    expect(page.get_by_role("heading", name="Direct chat")).to_be_visible()
    conversations(page).click()

    expect(answers(page)).to_have_text("hello")
    assert eventually(lambda: kept(page) == ["user", "assistant"], 20)


def test_the_side_is_opened_and_closed_by_keyboard_where_the_page_is_narrow(visit):
    page = visit(viewport={"width": 360, "height": 640})
    expect(page.locator("#side")).to_be_hidden()

    page.locator("#menu").press("Enter")
    expect(page.get_by_role("link", name="New conversation")).to_be_focused()
    page.keyboard.press("Escape")

    expect(page.locator("#side")).to_be_hidden()
    expect(page.locator("#menu")).to_be_focused()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_an_address_that_names_no_conversation_leads_to_a_new_one(visit, server):
    page = visit(f"{server.url}/#/c/00000000-0000-4000-8000-000000000000")

    expect(page.locator("#complaint")).to_contain_text("There is nothing here.")
    expect(page.get_by_role("heading", name="New conversation")).to_be_visible()
    assert re.fullmatch(r".*/#/", page.url)


def test_the_connection_can_be_checked_for_what_holds_streams_back(visit):
    page = visit()

    page.get_by_role("button", name="Check the connection").click()

    expect(page.locator("#check")).to_have_text("All 10 ticks came as they were sent: nothing holds streams back.")
