"""The chat page, used in a real browser."""

import re

import pytest
from playwright.sync_api import expect

from tests.engine.agents.openai_server import BEGIN, HEAD, full_reply, settings_of, text_deltas
from tests.live import eventually
from tests.web.page import (
    WORDS,
    HeldRequest,
    conversation_id,
    conversations,
    direct_chat,
    page_settings,
    questions,
    replies,
    root,
    send,
    stored_roles,
    transcript,
    wait_for_reply,
)
from tests.wire_server import HANG, WireServer

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

DURATION = """audio => new Promise((done) => {
    audio.onloadedmetadata = () => done(audio.duration);
    audio.preload = "metadata";
    audio.load();
})"""
MAX_BYTES = 108_000


def test_first_reply_takes_under_108_kb_from_this_server_only(visit, server):
    page = visit("about:blank")
    responses = []
    page.on("response", lambda response: responses.append(response))
    page.goto(server.url)

    send(page, "Hello, streaming world")
    expect(replies(page)).to_have_text("Hello, streaming world")
    wait_for_reply(page)

    assert all(response.url.startswith((server.url, "data:")) for response in responses)
    loaded = [response.body() for response in responses if response.url.startswith(server.url) and "/api/" not in response.url]
    assert sum(map(len, loaded)) < MAX_BYTES


def test_replies_are_markdown_and_questions_are_plain_text(visit):
    page = visit()

    send(page, "# Title\n\nSome **bold** `code`\n\n- one\n- two\n\n```python\nprint(1)\n```\n\n[x](https://example.org)")
    wait_for_reply(page)

    expect(questions(page)).to_contain_text("# Title")
    reply = replies(page)
    expect(reply.locator("h2")).to_have_text("Title")
    expect(reply.locator("strong")).to_have_text("bold")
    expect(reply.locator("ul li")).to_have_text(["one", "two"])
    expect(reply.locator("pre code")).to_have_text("print(1)")
    expect(reply.locator("a")).to_have_attribute("rel", "noopener noreferrer")
    expect(reply.get_by_role("button", name="Copy code")).to_be_visible()


def test_stop_ends_a_direct_reply_and_keeps_its_text(visit):
    page = direct_chat(visit())

    send(page, f"/slow 600 {WORDS}")
    expect(replies(page)).to_contain_text("word-0")
    page.keyboard.press("Escape")

    expect(transcript(page).locator(".note")).to_have_text("Stopped.")
    expect(replies(page)).to_contain_text("word-0")
    expect(page.locator("#stop")).to_be_hidden()


def test_a_queued_message_shows_its_position(visit):
    page = direct_chat(visit())

    send(page, f"/slow 600 {WORDS}")
    expect(replies(page).first).to_contain_text("word-0")
    send(page, "and then this")
    expect(transcript(page).locator(".status:visible")).to_contain_text("Waiting, number 1 in the queue")
    page.click("#stop")

    expect(replies(page).nth(1)).to_have_text("and then this")


def test_a_failed_direct_message_can_be_retried(visit):
    page = direct_chat(visit())

    send(page, "/error")
    expect(transcript(page).locator(".error")).to_contain_text("The assistant could not answer.")
    page.get_by_role("button", name="Try again").click()

    expect(transcript(page).locator(".error")).to_have_count(2)
    expect(questions(page)).to_have_text(["/error", "/error"])


def test_shift_enter_inserts_a_new_line(visit):
    page = visit()

    page.fill("#text", "one")
    page.press("#text", "Shift+Enter")
    page.keyboard.type("two")
    page.press("#text", "Enter")

    expect(questions(page)).to_have_text("one\ntwo")


@pytest.mark.slow
def test_a_reload_continues_a_running_direct_reply(visit):
    page = direct_chat(visit())
    send(page, f"/slow 3 {WORDS}")
    expect(replies(page)).to_contain_text("word-3")

    page.reload()

    expect(replies(page)).to_have_text(WORDS)
    expect(questions(page)).to_have_text(f"/slow 3 {WORDS}")


def test_another_tab_shows_a_running_direct_reply(visit):
    page = direct_chat(visit())
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.get_by_role("heading", name="Direct chat")).to_be_visible()

    send(page, f"/slow 1 {WORDS}")

    for tab in (page, other):
        expect(questions(tab)).to_have_text(f"/slow 1 {WORDS}")
        expect(replies(tab)).to_have_text(WORDS)


def test_older_turns_are_loaded_on_scrolling(visit):
    page = direct_chat(visit())
    for number in range(45):
        content = {"message": f"message {number}"}
        response = page.request.post(f"{root(page)}api/chat", data=content, headers={"Origin": root(page)[:-1]})
        assert response.ok, response.text()
    page.reload()
    expect(replies(page).last).to_have_text("message 44")
    assert replies(page).count() < 45

    expect(replies(page).last).to_be_in_viewport()
    while (count := replies(page).count()) < 45:
        transcript(page).locator("..").evaluate("scroller => scroller.scrollTo(0, 0)")
        expect(replies(page).nth(count)).to_be_attached()

    expect(questions(page)).to_have_text([f"message {number}" for number in range(45)])


def test_a_voice_message_gets_a_spoken_reply(visit):
    page = direct_chat(visit(permissions=["microphone"]))

    page.get_by_role("button", name="Record a voice message").click()
    expect(page.locator("#hint")).to_contain_text("Recording.")
    page.click("#send")

    expect(questions(page)).to_have_text("Voice message")
    audio = transcript(page).locator("audio")
    expect(audio).to_be_visible()
    assert audio.evaluate(DURATION) > 0


def test_a_conversation_is_stored_renamed_and_deleted(visit):
    page = visit()
    expect(page.get_by_role("button", name="Rename")).to_be_hidden()
    send(page, "Where is Bethlehem?")
    expect(replies(page)).to_have_text("Where is Bethlehem?")
    expect(conversations(page)).to_have_text("Where is Bethlehem?")
    wait_for_reply(page)
    assert stored_roles(page) == ["user", "assistant"]

    page.get_by_role("button", name="Rename").click()
    page.get_by_role("textbox", name="Title").fill("Bethlehem")
    page.keyboard.press("Enter")
    expect(conversations(page)).to_have_text("Bethlehem")
    page.reload()
    expect(page.get_by_role("heading", name="Bethlehem")).to_be_visible()
    expect(replies(page)).to_have_text("Where is Bethlehem?")

    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="New conversation")).to_be_visible()
    expect(conversations(page)).to_have_count(0)


def test_a_question_edited_in_place_shows_its_original(visit):
    page = visit()
    send(page, "Who was Saul?")
    wait_for_reply(page)
    question = transcript(page).locator(".question")

    question.get_by_role("button", name="Edit", exact=True).click()
    page.locator(".edit textarea").fill("Who was Paul?")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(questions(page)).to_have_text("Who was Paul?")

    page.reload()
    expect(questions(page)).to_have_text("Who was Paul?")
    question.get_by_role("button", name="Edited").click()
    expect(questions(page)).to_have_text("Who was Saul?")
    assert stored_roles(page) == ["user", "assistant"]


def test_another_agent_regenerates_a_reply(visit, start, tmp_path):
    with WireServer(full_reply("For God ", "so loved the world.")) as model:
        page = visit(start(**page_settings(tmp_path), **settings_of(model)).url)
        page.select_option("#agent", "openai")
        send(page, "What is written?")
        expect(replies(page)).to_have_text("For God so loved the world.")
        wait_for_reply(page)

        page.select_option("#agent", "echo")
        page.get_by_role("button", name="Regenerate").click()
        expect(replies(page)).to_have_text("What is written?")
        expect(page.get_by_text("2/2")).to_be_visible()

    assert stored_roles(page) == ["user", "assistant", "assistant"]


def test_a_conversation_is_created_by_its_first_message(visit):
    page = visit()
    expect(page.get_by_role("heading", name="New conversation")).to_be_visible()
    expect(page.locator("#persistence")).to_have_text("Replies are finished and kept when you close this page.")
    page.get_by_role("link", name="Direct chat").click()
    expect(page.locator("#persistence")).to_be_hidden()
    page.locator("#new").click()
    expect(conversations(page)).to_have_count(0)

    send(page, "first")
    wait_for_reply(page)
    first = conversation_id(page)
    page.locator("#new").click()
    expect(questions(page)).to_have_count(0)
    send(page, "second")
    wait_for_reply(page)

    expect(conversations(page)).to_have_text(["second", "first"])
    assert first != conversation_id(page)
    page.go_back()
    expect(questions(page)).to_have_text("first")


def test_a_stopped_reply_is_not_stored_and_can_be_requested_again(visit):
    page = visit()
    send(page, WORDS * 20)
    expect(replies(page)).to_contain_text("word-3")
    page.keyboard.press("Escape")
    expect(transcript(page).locator(".note")).to_have_text("Stopped, and not kept.")

    page.reload()
    expect(page.get_by_role("button", name="Ask for a reply")).to_be_visible()
    assert stored_roles(page) == ["user"]

    page.get_by_role("button", name="Ask for a reply").click()
    expect(replies(page)).to_contain_text("word-3")


def test_a_reload_continues_a_running_reply(visit):
    page = visit()
    send(page, WORDS)
    expect(replies(page)).to_contain_text("word-3")
    conversation_id(page)

    page.reload()

    expect(replies(page)).to_have_text(WORDS)
    wait_for_reply(page)
    expect(transcript(page).locator(".note:visible")).to_have_count(0)
    assert stored_roles(page) == ["user", "assistant"]


def test_a_reload_continues_a_running_regeneration(visit, start, tmp_path):
    with WireServer(full_reply("hello"), [HEAD, BEGIN, *text_deltas("Once ", "more"), HANG]) as model:
        page = visit(start(**page_settings(tmp_path), **settings_of(model)).url)
        page.select_option("#agent", "openai")
        send(page, "Greet me")
        wait_for_reply(page)
        page.get_by_role("button", name="Regenerate").click()
        expect(replies(page)).to_have_text("Once more")

        page.reload()
        expect(replies(page)).to_have_text("Once more")
        page.get_by_role("button", name="Stop").click()

        expect(replies(page)).to_have_text(["hello", "Once more"])
        assert model.wait_for(lambda: model.hung_up)
    expect(transcript(page).locator(".note:visible")).to_have_text("Stopped, and not kept.")
    assert stored_roles(page) == ["user", "assistant"]


def test_a_reply_is_finished_after_the_page_is_closed(visit, server):
    page = visit()
    context = page.context
    send(page, WORDS)
    expect(replies(page)).to_contain_text("word-3")
    address = page.url
    page.close()

    reopened = context.new_page()
    reopened.goto(server.url)
    assert eventually(lambda: stored_roles(reopened, address.rpartition("/")[2]) == ["user", "assistant"], 20)
    reopened.goto(address)

    expect(replies(reopened)).to_have_text(WORDS)
    expect(reopened.locator("#stop")).to_be_hidden()


@pytest.mark.parametrize("opened", ["before", "in mid-reply"])
def test_two_tabs_show_the_same_reply(visit, opened):
    page = visit()
    send(page, "hello")
    wait_for_reply(page)
    other = page.context.new_page()
    if opened == "before":
        other.goto(page.url)
        expect(questions(other)).to_have_text("hello")
    send(page, WORDS)
    expect(replies(page).last).to_contain_text("word-3")
    if opened != "before":
        other.goto(page.url)

    for tab in (page, other):
        expect(questions(tab)).to_have_text(["hello", WORDS])
        expect(replies(tab)).to_have_text(["hello", WORDS])
        wait_for_reply(tab)
    assert stored_roles(page) == ["user", "assistant", "user", "assistant"]


def test_stop_in_another_tab_stops_the_reply_in_every_tab(visit):
    page = visit()
    send(page, WORDS * 20)
    expect(replies(page)).to_contain_text("word-3")
    other = page.context.new_page()
    other.goto(page.url)
    expect(replies(other)).to_contain_text("word-3")

    other.get_by_role("button", name="Stop").click()

    for tab in (page, other):
        expect(transcript(tab).locator(".note")).to_have_text("Stopped, and not kept.")
        expect(tab.locator("#stop")).to_be_hidden()
    assert stored_roles(page) == ["user"]

    page.get_by_role("button", name="Try again").click()
    for tab in (page, other):
        expect(replies(tab)).to_contain_text("word-3")
        expect(tab.locator("#stop")).to_be_visible()


def test_an_edit_and_its_reply_are_shown_in_another_tab(visit):
    page = visit()
    send(page, "hello")
    wait_for_reply(page)
    other = page.context.new_page()
    other.goto(page.url)
    expect(questions(other)).to_have_text("hello")

    transcript(page).locator(".question").get_by_role("button", name="Edit", exact=True).click()
    page.locator(".edit textarea").fill(WORDS)
    page.get_by_role("button", name="Ask again").click()

    for tab in (page, other):
        expect(questions(tab)).to_have_text(WORDS)
        expect(replies(tab)).to_have_text(WORDS)
        expect(tab.get_by_text("2/2")).to_be_visible()


@pytest.mark.slow
def test_switching_chats_closes_the_stream_and_the_reply_continues(visit):
    page = visit()
    text = " ".join([WORDS] * 5)
    send(page, text)
    expect(replies(page)).to_contain_text("word-3")

    with page.expect_event("requestfailed", lambda request: "/stream?" in request.url):
        page.get_by_role("link", name="Direct chat").click()
    page.go_back()

    expect(replies(page)).to_have_text(text)
    expect(questions(page)).to_have_text(text)
    wait_for_reply(page)
    assert stored_roles(page) == ["user", "assistant"]


def test_a_message_gets_its_reply_after_switching_chats_at_once(visit):
    page = visit()
    send(page, "hello")
    page.get_by_role("link", name="Direct chat").click()
    expect(page.get_by_role("heading", name="Direct chat")).to_be_visible()
    conversations(page).click()

    expect(replies(page)).to_have_text("hello")
    assert eventually(lambda: stored_roles(page) == ["user", "assistant"], 20)


def test_the_sidebar_of_a_narrow_page_works_by_keyboard(visit):
    page = visit(viewport={"width": 360, "height": 640})
    expect(page.locator("#side")).to_be_hidden()

    page.locator("#menu").press("Enter")
    expect(page.get_by_role("link", name="New conversation")).to_be_focused()
    page.keyboard.press("Escape")

    expect(page.locator("#side")).to_be_hidden()
    expect(page.locator("#menu")).to_be_focused()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_message_sent_while_the_page_loads_stays_in_its_chat(visit, server):
    page = visit("about:blank")
    held = HeldRequest(page, "**/api/agents")
    page.goto(server.url)
    route = held.wait()
    send(page, "hello")
    page.get_by_role("link", name="Direct chat").click()
    expect(page.get_by_role("heading", name="Direct chat")).to_be_visible()

    route.continue_()
    conversations(page).click()

    expect(replies(page)).to_have_text("hello")
    assert eventually(lambda: stored_roles(page) == ["user", "assistant"], 20)


def test_a_message_is_kept_until_a_conversation_is_loaded(visit, server):
    page = visit()
    send(page, "hello")
    wait_for_reply(page)
    held = HeldRequest(page, "**/api/agents")
    page.reload()
    route = held.wait()
    page.fill("#text", "again")
    page.press("#text", "Enter")

    route.continue_()
    expect(questions(page)).to_have_text("hello")
    expect(page.locator("#text")).to_have_value("again")
    send(page, "again")

    expect(replies(page)).to_have_text(["hello", "again"])


def test_a_sidebar_that_is_opened_while_the_page_loads_stays_open(visit, server):
    page = visit("about:blank", viewport={"width": 360, "height": 640})
    held = HeldRequest(page, "**/api/agents")
    page.goto(server.url)
    route = held.wait()
    page.locator("#menu").press("Enter")

    with page.expect_response("**/api/conversations?*"):
        route.continue_()

    expect(page.get_by_role("link", name="New conversation")).to_be_focused()


def test_an_unknown_conversation_redirects_to_a_new_one(visit, server):
    page = visit(f"{server.url}/#/c/00000000-0000-4000-8000-000000000000")

    expect(page.locator("#complaint")).to_contain_text("There is nothing here.")
    expect(page.get_by_role("heading", name="New conversation")).to_be_visible()
    assert re.fullmatch(r".*/#/", page.url)


def test_the_connection_check_finds_no_buffering(visit):
    page = visit()

    page.get_by_role("button", name="Check the connection").click()

    expect(page.locator("#check")).to_have_text("All 10 ticks came as they were sent: nothing holds streams back.")
