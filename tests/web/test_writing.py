"""Texts of any script in the page: input methods, whose Enter does not send, and right-to-left text."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.web.page import WORDS, conversations, questions, replies, send, transcript, wait_for_reply

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

PRESS = """(field, [order, key]) => {
    const event = (isComposing, keyCode) => field.dispatchEvent(
        new KeyboardEvent("keydown", { key, isComposing, keyCode, bubbles: true, cancelable: true }));
    const compose = (type) => field.dispatchEvent(new CompositionEvent(type, { data: "日本語", bubbles: true }));
    compose("compositionstart");
    if (order === "Safari") {
        compose("compositionend");
        return event(false, 229);
    }
    const isAllowed = event(true, 229);
    compose("compositionend");
    return isAllowed;
}"""
"""Presses a key that ends a composition, with the browser's order of events. Returns whether its default action is allowed."""

HEBREW = "שלום עולם"
ARABIC_REPLY = """\
# مرحبا بالعالم

في البدء كان `code` الكلمة.

- أولا
- ثانيا

1. واحد

> اقتباس

| كلمة | معنى |
|---|---|
| أ | ب |

```python
print("left to right")
```

English again.
"""
DIRECTION = "element => getComputedStyle(element).direction"


@pytest.mark.parametrize("order", ["Safari", "Chromium"])
def test_enter_of_an_input_method_does_not_send(visit, order):
    page = visit()
    page.fill("#text", "日本語")

    assert page.locator("#text").evaluate(PRESS, [order, "Enter"])

    expect(page.locator("#text")).to_have_value("日本語")
    page.press("#text", "Enter")
    expect(questions(page)).to_have_text("日本語")


@pytest.mark.parametrize("order", ["Safari", "Chromium"])
def test_keys_of_an_input_method_do_not_end_renaming_or_editing(visit, order):
    page = visit()
    send(page, "hello")
    wait_for_reply(page)
    page.get_by_role("button", name="Rename").click()
    title = page.get_by_role("textbox", name="Title")
    title.fill("日本語")
    for key in ("Enter", "Escape"):
        assert title.evaluate(PRESS, [order, key])
        expect(title).to_be_visible()
    title.press("Enter")
    expect(conversations(page)).to_have_text("日本語")

    transcript(page).locator(".question").get_by_role("button", name="Edit", exact=True).click()
    area = page.locator(".edit textarea")
    area.evaluate(PRESS, [order, "Escape"])
    expect(area).to_be_visible()
    area.press("Escape")
    expect(area).to_have_count(0)


@pytest.mark.parametrize("order", ["Safari", "Chromium"])
def test_escape_of_an_input_method_does_not_stop_a_reply(visit, order):
    page = visit()
    send(page, WORDS)
    expect(replies(page)).to_contain_text("word-3")

    page.locator("#text").evaluate(PRESS, [order, "Escape"])

    expect(replies(page)).to_have_text(WORDS)
    expect(transcript(page).locator(".note:visible")).to_have_count(0)


def test_each_block_has_the_direction_of_its_text(visit, tmp_path):
    page = visit()
    page.fill("#text", HEBREW)
    assert page.locator("#text").evaluate(DIRECTION) == "rtl"
    send(page, ARABIC_REPLY)
    wait_for_reply(page)

    assert directions(page, "h2", "ul", "ul li", "ol", "blockquote", "table", "td", "p:has(code)") == {"rtl"}
    assert directions(page, "pre", "pre code", "p code", ".code", ":scope > p:last-child") == {"ltr"}
    page.screenshot(path=tmp_path / "right-to-left.png")
    assert Path(tmp_path / "right-to-left.png").stat().st_size > 0


def test_questions_titles_and_fields_have_the_direction_of_their_text(visit):
    page = visit()
    send(page, HEBREW)
    wait_for_reply(page)
    expect(conversations(page)).to_have_text(HEBREW)

    for element in (questions(page), conversations(page), page.locator("#title")):
        assert element.evaluate(DIRECTION) == "rtl"
    page.get_by_role("button", name="Rename").click()
    assert page.locator("#field").evaluate(DIRECTION) == "rtl"
    page.locator("#field").press("Escape")
    transcript(page).locator(".question").get_by_role("button", name="Edit", exact=True).click()
    assert page.locator(".edit textarea").evaluate(DIRECTION) == "rtl"
    page.locator(".edit textarea").fill("hello")
    assert page.locator(".edit textarea").evaluate(DIRECTION) == "ltr"


def test_lines_of_a_question_are_aligned_by_their_own_text(visit):
    page = visit()
    send(page, f"hello\n{HEBREW}")
    wait_for_reply(page)

    assert questions(page).evaluate("element => getComputedStyle(element).unicodeBidi") == "plaintext"


def directions(page: Page, *selectors: str) -> set[str]:
    return {replies(page).last.locator(selector).first.evaluate(DIRECTION) for selector in selectors}
