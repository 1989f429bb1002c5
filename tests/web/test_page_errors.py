"""The page under failed requests, races and unknown events."""

import json
import threading

import pytest
from playwright.sync_api import Route, expect

from tests.broker_responses import COMPLETE, RECEIPT
from tests.engine.agents.openai_server import BEGIN, HEAD, error_reply, full_reply, settings_of, text_deltas
from tests.live import BROKER_KEY
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
from tests.wire_server import HANG, LAST_CHUNK, WireServer, chunk, stream_head

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

STREAM = {"Content-Type": "text/event-stream", "X-Message-ID": "m-1"}
DELAY_MICROPHONE = """() => {
    const getUserMedia = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    const allowed = new Promise((resolve) => window.allow = resolve);
    const streams = [];
    window.requested = new Promise((resolve) => {
        navigator.mediaDevices.getUserMedia = (constraints) => {
            streams.push(allowed.then(() => getUserMedia(constraints)));
            resolve();
            return streams.at(-1);
        };
    });
    window.live = async () => (await Promise.all(streams)).flatMap((stream) => stream.getTracks())
        .filter((track) => track.readyState === "live").length;
}"""
"""`requested` resolves when the page requests the microphone, `allow()` grants it, `live()` counts its live tracks."""
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
SEND_AND_DISCONNECT = """async (message) => {
    const controller = new AbortController();
    const body = JSON.stringify({ message });
    const headers = { "Content-Type": "application/json" };
    await fetch("/api/chat/stream", { method: "POST", headers, body, signal: controller.signal });
    controller.abort();
}"""


def events(*contents: dict) -> str:
    return "".join(f"data: {json.dumps(content)}\n\n" for content in contents)


def test_a_stop_before_the_message_is_accepted_stops_its_reply(visit):
    page = visit()
    held = HeldRequest(page, "**/messages", "POST")

    send(page, WORDS)
    route = held.wait()
    page.keyboard.press("Escape")
    route.continue_()

    expect(transcript(page).locator(".note")).to_have_text("Stopped, and not kept.")
    expect(page.locator("#stop")).to_be_hidden()
    assert stored_roles(page) == ["user"]


def test_a_reply_resumes_after_the_machine_slept(visit):
    page = visit()
    held = HeldRequest(page, "**/stream?*")
    send(page, WORDS)
    held.wait()

    page.evaluate("() => { const { now } = Date; Date.now = () => now() + 60_000; }")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    expect(replies(page)).to_have_text(WORDS)
    expect(transcript(page).locator(".note")).to_have_text("Continued after a break in the connection.")


@pytest.mark.slow
def test_without_storage_only_a_reload_does_not_continue_a_reply(visit, server):
    page = visit("about:blank")
    page.context.add_init_script(DENY_STORAGE)
    page.goto(server.url)
    other = page.context.new_page()
    send(page, "hello")
    wait_for_reply(page)
    other.goto(page.url)
    expect(questions(other)).to_have_text("hello")
    send(page, WORDS)
    for tab in (page, other):
        expect(replies(tab)).to_have_text(["hello", WORDS])

    send(page, WORDS * 20)
    expect(replies(page).last).to_contain_text("word-3")
    page.reload()
    page.get_by_role("button", name="Ask for a reply").click()
    expect(replies(page).last).to_contain_text("word-3")
    page.get_by_role("button", name="Stop").click()
    expect(transcript(page).locator(".note:visible")).to_have_text("Stopped, and not kept.")

    direct_chat(page)
    send(page, f"/slow 1 {WORDS}")
    expect(replies(page)).to_have_text(WORDS)


def test_a_question_waits_for_another_reply_of_the_conversation(visit, start, tmp_path):
    scripts = [full_reply("first"), [HEAD, BEGIN, *text_deltas("further"), HANG], full_reply("second")]
    with WireServer(*scripts) as model:
        page = visit(start(**page_settings(tmp_path), **settings_of(model)).url)
        page.select_option("#agent", "openai")
        send(page, "one")
        wait_for_reply(page)
        page.evaluate(REGENERATE, [root(page), "by-another-device"])

        send(page, "two")
        waiting = transcript(page).locator(".status:visible")
        expect(waiting).to_have_text("Another reply in this conversation is being written…")
        page.evaluate(STOP, root(page))

        expect(replies(page)).to_have_text(["first", "second"])
        wait_for_reply(page)
    assert stored_roles(page) == ["user", "assistant", "user", "assistant"]


def test_an_interrupted_reply_restarts(visit):
    page = visit()
    run = 'event: token\ndata: {"token": "Half"}\nid: 1-0\n\nevent: restart\ndata: {}\nid: 2-0\n\n'
    held = HeldRequest(page, "**/stream?*")
    page.route("**/stream?*", lambda route: route.fulfill(headers=STREAM, body=run), times=1)
    send(page, "Say it again")

    route = held.wait()
    expect(replies(page)).to_have_text("")
    assert route.request.header_value("Last-Event-ID") == "2-0"
    route.continue_()

    expect(replies(page)).to_have_text("Say it again")
    wait_for_reply(page)
    expect(transcript(page).locator(".note")).to_have_text("The reply was interrupted, and begins again.")


def test_a_restarted_direct_reply_discards_its_text(visit, start, tmp_path):
    shown, discarded = threading.Event(), threading.Event()
    half, restart, complete = (
        chunk(f"id: {number}-0\ndata: {data}\n\n".encode())
        for number, data in enumerate(('{"type":"progress","text":"**Half"}', '{"type":"restart"}', COMPLETE), start=1)
    )
    stream = [stream_head(), half, shown, restart, discarded, complete, LAST_CHUNK]
    with WireServer([RECEIPT], stream) as broker:
        page = direct_chat(visit(start(**page_settings(tmp_path), BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY).url))
        send(page, "hello")
        expect(replies(page)).to_contain_text("Half")
        shown.set()
        expect(replies(page)).to_have_text("")
        expect(transcript(page).locator(".note")).to_have_text("The reply was interrupted, and begins again.")
        discarded.set()

        expect(replies(page)).to_have_text("ok")
        wait_for_reply(page)


def test_a_failed_reply_can_be_retried(visit, start, tmp_path):
    with WireServer([error_reply("400 Bad Request")], full_reply("first")) as model:
        page = visit(start(**page_settings(tmp_path), **settings_of(model)).url)
        page.select_option("#agent", "openai")
        send(page, "one")
        expect(transcript(page).locator(".error")).to_be_visible()
        page.get_by_role("button", name="Try again").click()

        expect(replies(page)).to_have_text("first")
        expect(questions(page)).to_have_text("one")
    assert stored_roles(page) == ["user", "assistant"]


def test_a_failed_message_can_be_sent_again(visit):
    page = visit()
    page.route("**/messages", lambda route: route.abort(), times=1)
    send(page, "hello")
    expect(transcript(page).locator(".error")).to_contain_text("The connection was lost.")
    page.evaluate("dispatchEvent(new Event('focus'))")

    page.get_by_role("button", name="Try again").click()

    expect(replies(page)).to_have_text("hello")
    wait_for_reply(page)
    assert stored_roles(page) == ["user", "assistant"]


def test_a_message_whose_response_was_lost_is_stored_once(visit):
    page = visit()

    def drop_response(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/messages", drop_response, times=1)
    send(page, "hello")
    page.get_by_role("button", name="Try again").click()

    expect(replies(page)).to_have_text("hello")
    wait_for_reply(page)
    assert stored_roles(page) == ["user", "assistant"]


def test_an_unknown_event_does_not_end_a_reply(visit):
    page = direct_chat(visit())
    beginning = events({"type": "progress", "text": "In the "}, {"type": "citation", "verse": "John 1:1"})
    end = events({"type": "complete", "response": {"responses": ["In the beginning"]}})
    page.route("**/api/chat/stream", lambda route: route.fulfill(headers=STREAM, body=beginning))
    held = HeldRequest(page, "**/api/chat/stream/m-1")

    send(page, "How does it begin?")
    route = held.wait()
    expect(replies(page)).to_have_text("In the ")
    expect(page.locator("#stop")).to_be_visible()
    route.fulfill(headers=STREAM, body=end)

    expect(replies(page)).to_have_text("In the beginning")
    expect(page.locator("#stop")).to_be_hidden()


def test_a_reply_to_an_unknown_question_is_followed(visit):
    page = direct_chat(visit())
    other = page.context.new_page()
    other.goto(page.url)
    for tab in (page, other):
        expect(tab.locator(".transcript")).to_be_visible()

    page.evaluate(SEND_AND_DISCONNECT, f"/slow 3 {WORDS}")
    page.evaluate("dispatchEvent(new Event('focus'))")

    for tab in (page, other):
        expect(replies(tab)).to_contain_text("word-3")
        expect(questions(tab)).to_have_count(0)


def test_a_failed_voice_message_of_another_tab_cannot_be_retried_as_text(visit):
    page = direct_chat(visit())
    failure = events({"type": "error", "error": "The assistant could not answer.", "code": "upstream_error"})
    page.route("**/api/chat/active", lambda route: route.fulfill(json={"messages": [{"message_id": "m-1"}]}))
    page.route("**/api/chat/stream/m-1", lambda route: route.fulfill(headers=STREAM, body=failure))
    running = "{ 'm-1': { value: 'Voice message', at: Date.now() } }"
    page.evaluate(f"localStorage.setItem('chat.running', JSON.stringify({running}))")

    page.reload()

    expect(questions(page)).to_have_text("Voice message")
    expect(transcript(page).locator(".error")).to_have_text("The assistant could not answer.")
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)


def test_the_microphone_is_requested_once_and_released(visit):
    page = direct_chat(visit(permissions=["microphone"]))
    page.evaluate(DELAY_MICROPHONE)
    voice = page.get_by_role("button", name="Record a voice message")
    voice.click()
    page.evaluate("requested")

    voice.click()
    page.evaluate("allow()")
    expect(page.locator("#hint")).to_contain_text("Recording.")
    page.keyboard.press("Escape")

    assert page.evaluate("live()") == 0
    expect(page.locator("#text")).to_be_focused()


@pytest.mark.parametrize("leave", ["press Esc", "go to another conversation"])
def test_a_microphone_granted_after_cancelling_is_released(visit, leave):
    page = direct_chat(visit(permissions=["microphone"]))
    page.evaluate(DELAY_MICROPHONE)
    page.get_by_role("button", name="Record a voice message").click()
    page.evaluate("requested")

    if leave == "press Esc":
        page.keyboard.press("Escape")
    else:
        page.locator("#new").click()
    page.evaluate("allow()")

    assert page.evaluate("live()") == 0
    expect(page.locator("#hint")).to_be_hidden()


def test_a_conversation_that_fails_to_load_late_does_not_replace_another(visit):
    page = visit()
    send(page, "first")
    first = conversation_id(page)
    direct_chat(page)
    held = HeldRequest(page, f"**/api/conversations/{first}")
    conversations(page).click()
    route = held.wait()
    page.locator("#new").click()
    send(page, "second")
    second = conversation_id(page)

    with page.expect_event("requestfailed"):
        route.abort()
    page.evaluate("new Promise(requestAnimationFrame)")

    assert page.url.endswith(second)
    assert second != first
    expect(page.locator("#complaint")).to_have_count(0)


def test_failing_to_load_more_conversations_shows_an_error(visit):
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
def test_a_module_that_fails_to_load_shows_an_error(visit, name, module):
    page = direct_chat(visit(permissions=["microphone"]))
    page.route(f"**/static/{module}.js", lambda route: route.abort())

    page.get_by_role("button", name=name).click()

    expect(page.locator("#complaint")).to_contain_text("The connection was lost.")


def test_the_connection_check_reports_a_refusing_server(visit, start, tmp_path):
    page = direct_chat(visit(start(**page_settings(tmp_path), MAX_STREAMS="1").url))
    send(page, f"/slow 600 {WORDS}")
    expect(replies(page)).to_contain_text("word-0")

    page.get_by_role("button", name="Check the connection").click()

    expect(page.locator("#check")).to_have_text("The server answered 503.")
