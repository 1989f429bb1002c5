"""The page where something fails, comes too early, or is nothing it knows."""

import json
import threading

import pytest
from playwright.sync_api import Page, Route, expect

from tests.broker_says import COMPLETE, TICKET
from tests.engine.agents.openai_server import BEGIN, HEAD, refusal, settings_of, whole, words
from tests.live import BROKER_KEY
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
from tests.wire_server import HANG, LAST_CHUNK, WireServer, chunk, stream_head

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

STREAM = {"Content-Type": "text/event-stream", "X-Message-ID": "m-1"}
ASK_FIRST = """() => {
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    const allowed = new Promise((resolve) => window.allow = resolve);
    const streams = [];
    window.asked = new Promise((resolve) => {
        navigator.mediaDevices.getUserMedia = (what) => {
            streams.push(allowed.then(() => ask(what)));
            resolve();
            return streams.at(-1);
        };
    });
    window.live = async () => (await Promise.all(streams)).flatMap((stream) => stream.getTracks())
        .filter((track) => track.readyState === "live").length;
}"""
"""The browser asks its user, `asked` is when, who answers with `allow()`; `live()` is what then listens."""
DENY_STORAGE = """
    for (const name of ["localStorage", "sessionStorage"])
        Object.defineProperty(window, name, { get() { throw new DOMException("Access is denied.", "SecurityError"); } });
"""
REGENERATE = """async ([root, regenerate]) => {
    const path = `${root}api/conversations/${location.hash.slice(4)}`;
    const { messages: [{ id }] } = await (await fetch(`${path}/messages`)).json();
    window.regenerated = await fetch(`${path}/stream?messageId=${id}&regenerate=${regenerate}&on_disconnect=continue`);
}"""
STOP = "(root) => fetch(`${root}api/conversations/${location.hash.slice(4)}/stop`, { method: 'POST' })"
LEAVE_AN_ANSWER = """async (message) => {
    const life = new AbortController();
    const body = JSON.stringify({ message });
    const headers = { "Content-Type": "application/json" };
    await fetch("/api/chat/stream", { method: "POST", headers, body, signal: life.signal });
    life.abort();
}"""


def events(*contents: dict) -> str:
    return "".join(f"data: {json.dumps(content)}\n\n" for content in contents)


class Held:
    """The first request to `address` waits until it is let go."""

    def __init__(self, page: Page, address: str, method: str = "GET") -> None:
        self._page = page
        self._method = method
        self._held: Route | None = None
        page.route(address, self._hold)

    def _hold(self, route: Route) -> None:
        if self._held is None and route.request.method == self._method:
            self._held = route
        else:
            route.fallback()

    def first(self) -> Route:
        while self._held is None:
            self._page.evaluate("new Promise(requestAnimationFrame)")
        return self._held


def test_a_stop_before_the_message_was_taken_stops_its_reply(visit):
    page = visit()
    held = Held(page, "**/messages", "POST")

    say(page, WORDS)
    taken = held.first()
    page.keyboard.press("Escape")
    taken.continue_()

    expect(log(page).locator(".note")).to_have_text("Stopped, and not kept.")
    expect(page.locator("#stop")).to_be_hidden()
    assert kept(page) == ["user"]


def test_a_reply_whose_connection_died_while_the_machine_slept_goes_on_when_the_page_is_seen(visit):
    page = visit()
    held = Held(page, "**/stream?*")
    say(page, WORDS)
    held.first()

    page.evaluate("() => { const { now } = Date; Date.now = () => now() + 60_000; }")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    expect(answers(page)).to_have_text(WORDS)
    expect(log(page).locator(".note")).to_have_text("Continued after a break in the connection.")


def test_without_storage_everything_works_but_a_reload_asks_first(visit, server):
    page = visit("about:blank")
    page.context.add_init_script(DENY_STORAGE)
    page.goto(server.url)
    other = page.context.new_page()
    say(page, "hello")
    wait_until_answered(page)
    other.goto(page.url)
    expect(questions(other)).to_have_text("hello")
    say(page, WORDS)
    for tab in (page, other):
        expect(answers(tab)).to_have_text(["hello", WORDS])

    say(page, WORDS * 20)
    expect(answers(page).last).to_contain_text("word-3")
    page.reload()
    page.get_by_role("button", name="Ask for a reply").click()
    expect(answers(page).last).to_contain_text("word-3")
    page.get_by_role("button", name="Stop").click()
    expect(log(page).locator(".note:visible")).to_have_text("Stopped, and not kept.")

    direct_chat(page)
    say(page, f"/slow 1 {WORDS}")
    expect(answers(page)).to_have_text(WORDS)


def test_a_question_waits_while_another_reply_is_written_and_is_answered_then(visit, start, tmp_path):
    replies = [whole("first"), [HEAD, BEGIN, *words("further"), HANG], whole("second")]
    with WireServer(*replies) as model:
        page = visit(start(**settings(tmp_path), **settings_of(model)).url)
        page.select_option("#agent", "openai")
        say(page, "one")
        wait_until_answered(page)
        page.evaluate(REGENERATE, [root(page), "by-another-device"])

        say(page, "two")
        waiting = log(page).locator(".status:visible")
        expect(waiting).to_have_text("Another reply in this conversation is being written…")
        page.evaluate(STOP, root(page))

        expect(answers(page)).to_have_text(["first", "second"])
        wait_until_answered(page)
    assert kept(page) == ["user", "assistant", "user", "assistant"]


def test_a_reply_that_is_interrupted_begins_again(visit):
    page = visit()
    run = 'event: token\ndata: {"token": "Half"}\nid: 1-0\n\nevent: restart\ndata: {}\nid: 2-0\n\n'
    held = Held(page, "**/stream?*")
    page.route("**/stream?*", lambda route: route.fulfill(headers=STREAM, body=run), times=1)
    say(page, "Say it again")

    again = held.first()
    expect(answers(page)).to_have_text("")
    assert again.request.header_value("Last-Event-ID") == "2-0"
    again.continue_()

    expect(answers(page)).to_have_text("Say it again")
    wait_until_answered(page)
    expect(log(page).locator(".note")).to_have_text("The reply was interrupted, and begins again.")


def test_a_direct_answer_that_begins_anew_takes_back_what_it_said(visit, start, tmp_path):
    shown, taken_back = threading.Event(), threading.Event()
    half, restart, whole_answer = (
        chunk(f"id: {number}-0\ndata: {data}\n\n".encode())
        for number, data in enumerate(('{"type":"progress","text":"**Half"}', '{"type":"restart"}', COMPLETE), start=1)
    )
    answer = [stream_head(), half, shown, restart, taken_back, whole_answer, LAST_CHUNK]
    with WireServer([TICKET], answer) as broker:
        page = direct_chat(visit(start(**settings(tmp_path), BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY).url))
        say(page, "hello")
        expect(answers(page)).to_contain_text("Half")
        shown.set()
        expect(answers(page)).to_have_text("")
        expect(log(page).locator(".note")).to_have_text("The reply was interrupted, and begins again.")
        taken_back.set()

        expect(answers(page)).to_have_text("ok")
        wait_until_answered(page)


def test_a_reply_that_failed_can_be_tried_again(visit, start, tmp_path):
    with WireServer([refusal("400 Bad Request")], whole("first")) as model:
        page = visit(start(**settings(tmp_path), **settings_of(model)).url)
        page.select_option("#agent", "openai")
        say(page, "one")
        expect(log(page).locator(".error")).to_be_visible()
        page.get_by_role("button", name="Try again").click()

        expect(answers(page)).to_have_text("first")
        expect(questions(page)).to_have_text("one")
    assert kept(page) == ["user", "assistant"]


def test_a_message_that_could_not_be_sent_can_be_sent_again(visit):
    page = visit()
    page.route("**/messages", lambda route: route.abort(), times=1)
    say(page, "hello")
    expect(log(page).locator(".error")).to_contain_text("The connection was lost.")
    page.evaluate("dispatchEvent(new Event('focus'))")

    page.get_by_role("button", name="Try again").click()

    expect(answers(page)).to_have_text("hello")
    wait_until_answered(page)
    assert kept(page) == ["user", "assistant"]


def test_a_message_whose_receipt_was_lost_is_sent_once(visit):
    page = visit()

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/messages", lose, times=1)
    say(page, "hello")
    page.get_by_role("button", name="Try again").click()

    expect(answers(page)).to_have_text("hello")
    wait_until_answered(page)
    assert kept(page) == ["user", "assistant"]


def test_an_event_that_the_page_does_not_know_ends_nothing(visit):
    page = direct_chat(visit())
    beginning = events({"type": "progress", "text": "In the "}, {"type": "citation", "verse": "John 1:1"})
    end = events({"type": "complete", "response": {"responses": ["In the beginning"]}})
    page.route("**/api/chat/stream", lambda route: route.fulfill(headers=STREAM, body=beginning))
    held = Held(page, "**/api/chat/stream/m-1")

    say(page, "How does it begin?")
    again = held.first()
    expect(answers(page)).to_have_text("In the ")
    expect(page.locator("#stop")).to_be_visible()
    again.fulfill(headers=STREAM, body=end)

    expect(answers(page)).to_have_text("In the beginning")
    expect(page.locator("#stop")).to_be_hidden()


def test_a_message_whose_question_is_unknown_is_told_on_without_one(visit):
    page = direct_chat(visit())
    other = page.context.new_page()
    other.goto(page.url)
    for tab in (page, other):
        expect(tab.locator(".transcript")).to_be_visible()

    page.evaluate(LEAVE_AN_ANSWER, f"/slow 3 {WORDS}")
    page.evaluate("dispatchEvent(new Event('focus'))")

    for tab in (page, other):
        expect(answers(tab)).to_contain_text("word-3")
        expect(questions(tab)).to_have_count(0)


def test_a_voice_message_that_failed_elsewhere_is_not_said_again_as_text(visit):
    page = direct_chat(visit())
    failure = events({"type": "error", "error": "The assistant could not answer.", "code": "upstream_error"})
    page.route("**/api/chat/active", lambda route: route.fulfill(json={"messages": [{"message_id": "m-1"}]}))
    page.route("**/api/chat/stream/m-1", lambda route: route.fulfill(headers=STREAM, body=failure))
    running = "{ 'm-1': { value: 'Voice message', at: Date.now() } }"
    page.evaluate(f"localStorage.setItem('chat.running', JSON.stringify({running}))")

    page.reload()

    expect(questions(page)).to_have_text("Voice message")
    expect(log(page).locator(".error")).to_have_text("The assistant could not answer.")
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)


def test_the_microphone_is_asked_for_once_and_given_back(visit):
    page = direct_chat(visit(permissions=["microphone"]))
    page.evaluate(ASK_FIRST)
    voice = page.get_by_role("button", name="Record a voice message")
    voice.click()
    page.evaluate("asked")

    voice.click()
    page.evaluate("allow()")
    expect(page.locator("#hint")).to_contain_text("Recording.")
    page.keyboard.press("Escape")

    assert page.evaluate("live()") == 0
    expect(page.locator("#text")).to_be_focused()


@pytest.mark.parametrize("leave", ["press Esc", "go to another conversation"])
def test_a_microphone_that_is_no_longer_wanted_is_given_back_at_once(visit, leave):
    page = direct_chat(visit(permissions=["microphone"]))
    page.evaluate(ASK_FIRST)
    page.get_by_role("button", name="Record a voice message").click()
    page.evaluate("asked")

    if leave == "press Esc":
        page.keyboard.press("Escape")
    else:
        page.locator("#new").click()
    page.evaluate("allow()")

    assert page.evaluate("live()") == 0
    expect(page.locator("#hint")).to_be_hidden()


def test_a_conversation_that_fails_late_takes_nobody_away_from_another(visit):
    page = visit()
    say(page, "first")
    first = conversation_id(page)
    direct_chat(page)
    held = Held(page, f"**/api/conversations/{first}")
    conversations(page).click()
    late = held.first()
    page.locator("#new").click()
    say(page, "second")
    second = conversation_id(page)

    with page.expect_event("requestfailed"):
        late.abort()
    page.evaluate("new Promise(requestAnimationFrame)")

    assert page.url.endswith(second)
    assert second != first
    expect(page.locator("#complaint")).to_have_count(0)


def test_more_conversations_that_cannot_be_shown_are_a_failure_that_is_said(visit):
    page = visit()
    for _ in range(31):
        assert page.request.post(f"{root(page)}api/conversations", data={}, headers={"Origin": root(page)[:-1]}).ok
    page.reload()
    page.route("**/api/conversations?*cursor=*", lambda route: route.abort())

    page.get_by_role("button", name="Show more").click()
    expect(page.locator("#complaint")).to_contain_text("The connection was lost.")
    page.unroute("**/api/conversations?*cursor=*")
    page.get_by_role("button", name="Show more").click()

    expect(conversations(page)).to_have_count(31)


@pytest.mark.parametrize(("name", "module"), [("Check the connection", "diagnose"), ("Record a voice message", "voice")])
def test_a_part_of_the_page_that_does_not_come_is_a_failure_that_is_said(visit, name, module):
    page = direct_chat(visit(permissions=["microphone"]))
    page.route(f"**/static/{module}.js", lambda route: route.abort())

    page.get_by_role("button", name=name).click()

    expect(page.locator("#complaint")).to_contain_text("The connection was lost.")


def test_a_server_that_refuses_is_not_taken_for_a_network_that_holds_streams_back(visit, start, tmp_path):
    page = direct_chat(visit(start(**settings(tmp_path), MAX_STREAMS="1").url))
    say(page, f"/slow 600 {WORDS}")
    expect(answers(page)).to_contain_text("word-0")

    page.get_by_role("button", name="Check the connection").click()

    expect(page.locator("#check")).to_have_text("The server answered 503.")
