"""axe-core finds no accessibility violations in the page: light and dark, wide and narrow."""

import pytest
from playwright.sync_api import Page, expect

from tests.web.page import EVERYTHING, direct_chat, replies, send, transcript, wait_for_reply

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

RUN_ENHANCED = """async () => {
    const options = { runOnly: ["color-contrast-enhanced"] };
    return (await axe.run("#side", options)).violations.flatMap(({ nodes }) => nodes.map((node) => node.failureSummary));
}"""
RUN = "async () => (await axe.run()).violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(' ')}`)"


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(visit, axe, scheme, width):
    page = visit(color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce")
    page.evaluate(axe)
    assert violations(page) == []

    direct_chat(page)
    assert violations(page) == []
    send(page, EVERYTHING)
    expect(replies(page)).to_contain_text("λόγος")
    send(page, "/error")
    expect(transcript(page).locator(".error")).to_be_visible()
    assert violations(page) == []
    if width < 500:
        page.click("#menu")
        expect(page.locator("#side")).to_be_visible()
        assert violations(page) == []
    page.locator("#new").click()
    expect(page.get_by_role("heading", name="New conversation")).to_be_visible()
    send(page, "Who was Saul?")
    wait_for_reply(page)
    transcript(page).locator(".question").get_by_role("button", name="Edit", exact=True).click()
    assert violations(page) == []
    page.locator(".edit textarea").fill("Who was Paul?")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(transcript(page).get_by_role("button", name="Edited")).to_be_visible()
    page.get_by_role("button", name="Delete").click()
    assert violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_side_bar_has_enhanced_contrast(visit, axe, scheme):
    page = visit(color_scheme=scheme, reduced_motion="reduce")
    send(page, "hello")
    wait_for_reply(page)
    page.evaluate(axe)

    for hovered in ("#check", "#conversations a:not(#direct)", "#title"):
        page.hover(hovered)
        assert page.evaluate(RUN_ENHANCED) == []


def test_the_first_heading_is_the_title(visit):
    page = visit()
    send(page, "### Heading\n\n##### Smaller")
    wait_for_reply(page)

    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map(({ tagName }) => tagName)")

    assert levels == ["H1", "H2", "H3"]


def violations(page: Page) -> list[str]:
    found: list[str] = page.evaluate(RUN)
    return found
