"""The page where the browser blocks all cookies and storage, or where single features are missing or broken."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.chromium import ARGUMENTS, chromium_path
from tests.live import who
from tests.web.page import (
    TIMEOUT_MS,
    WORDS,
    conversations,
    direct_chat,
    page_settings,
    questions,
    replies,
    send,
    stop_clock,
    transcript,
    wait_for_reply,
)

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

BLOCK_COOKIES = {"profile": {"default_content_setting_values": {"cookies": 2}}}
"""Chromium's setting; then `localStorage` and `sessionStorage` throw a SecurityError."""
IS_DENIED = "['localStorage', 'sessionStorage'].every((name) => { try { return !window[name]; } catch { return true; } })"
THROW = "Object.defineProperty(window, '{name}', {{ get() {{ throw new DOMException('Denied.', 'SecurityError'); }} }});"
NO_CHANNEL = "delete window.BroadcastChannel;"
FULL_STORAGE = "Storage.prototype.setItem = () => { throw new DOMException('Full.', 'QuotaExceededError'); };"
DENY_CLIPBOARD = "Clipboard.prototype.writeText = () => Promise.reject(new DOMException('Denied.', 'NotAllowedError'));"
NO_CLIPBOARD = "Object.defineProperty(Navigator.prototype, 'clipboard', { get() { throw new Error('Denied.'); } });"
DENY_MICROPHONE = "navigator.mediaDevices.getUserMedia = () => { throw new DOMException('Denied.', 'SecurityError'); };"
NO_MEDIA = "Object.defineProperty(Navigator.prototype, 'mediaDevices', { get() { throw new Error('Denied.'); } });"


@pytest.fixture
def denied(browser, start, tmp_path: Path) -> Iterator[Page]:
    """The page in a browser that blocks all cookies. A proxy authenticates the user. Errors in the page fail the test."""
    preferences = tmp_path / "profile" / "Default" / "Preferences"
    preferences.parent.mkdir(parents=True)
    preferences.write_text(json.dumps(BLOCK_COOKIES))
    url = start(**page_settings(tmp_path) | {"AUTH_MODE": "proxy"}).url
    problems: list[str] = []
    context = browser.browser_type.launch_persistent_context(
        tmp_path / "profile", executable_path=chromium_path(), args=ARGUMENTS, extra_http_headers=who("ada"), timeout=60_000
    )
    context.set_default_timeout(TIMEOUT_MS)
    context.on("weberror", lambda error: problems.append(str(error.error)))
    page = context.pages[0]
    page.goto(url)
    assert page.evaluate(IS_DENIED)
    yield page
    context.close()
    assert problems == []


@pytest.mark.slow
def test_the_page_works_with_all_cookies_blocked(denied):
    page = denied
    send(page, "hello")
    wait_for_reply(page)
    expect(conversations(page)).to_have_text("hello")
    send(page, WORDS * 20)
    expect(replies(page).last).to_contain_text("word-3")
    page.get_by_role("button", name="Stop").click()
    expect(transcript(page).locator(".note:visible")).to_have_text("Stopped, and not kept.")

    direct_chat(page)
    send(page, f"/slow 1 {WORDS}")
    expect(replies(page)).to_have_text(WORDS)
    wait_for_reply(page)
    expect(page.locator("#stop")).to_be_hidden()
    expect(page.locator("[aria-busy]")).to_have_count(0)


@pytest.mark.parametrize(
    "script", [THROW.format(name="localStorage"), THROW.format(name="BroadcastChannel"), NO_CHANNEL, FULL_STORAGE, NO_CLIPBOARD]
)
def test_the_page_works_without_an_optional_feature(visit, server, script):
    page = open_with(visit, server.url, script)

    send(page, "hello")
    expect(replies(page)).to_have_text("hello")
    expect(conversations(page)).to_have_text("hello")
    send(page, WORDS)
    expect(replies(page).last).to_have_text(WORDS)

    expect(page.locator("#stop")).to_be_hidden()
    expect(page.locator("#send")).to_be_visible()


def test_full_storage_does_not_bring_back_old_values(visit):
    page = visit()
    remembered = page.evaluate(
        """async () => {
            localStorage.setItem("chat.test", '"old"');
            Storage.prototype.setItem = () => { throw new DOMException("Full.", "QuotaExceededError"); };
            const { store } = await import("/static/store.js");
            store.set("chat.test", "new");
            return store.get("chat.test");
        }"""
    )

    assert remembered == "new"


def test_a_denied_clipboard_is_reported_in_the_button(visit, server):
    page = open_with(visit, server.url, DENY_CLIPBOARD)
    send(page, "hello")
    wait_for_reply(page)
    stop_clock(page)

    page.get_by_role("button", name="Copy answer").click()

    expect(page.get_by_role("button", name="Not copied answer")).to_be_visible()
    page.clock.run_for(2000)
    expect(page.get_by_role("button", name="Copy answer")).to_be_visible()


@pytest.mark.slow
def test_a_denied_microphone_can_be_requested_again(visit, server):
    page = direct_chat(open_with(visit, server.url, DENY_MICROPHONE))
    voice = page.get_by_role("button", name="Record a voice message")
    stop_clock(page)

    for _ in range(2):
        voice.click()
        expect(page.locator("#hint")).to_have_text("The microphone cannot be used.")
        page.clock.run_for(4000)
        expect(page.locator("#hint")).to_be_hidden()

    expect(page.locator("#text")).to_be_visible()


def test_without_media_devices_there_is_no_microphone_button(visit, server):
    page = direct_chat(open_with(visit, server.url, NO_MEDIA))

    expect(page.locator("#voice")).to_be_hidden()
    send(page, "hello")
    expect(questions(page)).to_have_text("hello")


def open_with(visit: Callable[..., Page], url: str, script: str) -> Page:
    """Opens the page; `script` runs before its own."""
    page = visit("about:blank")
    page.context.add_init_script(script)
    page.goto(url)
    return page
