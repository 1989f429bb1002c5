"""The chat page in a visitor's hands."""

from playwright.sync_api import Locator, Page, expect

from tests.web.conftest import MILLISECONDS

expect.set_options(timeout=MILLISECONDS)

WORDS = " ".join(f"word-{number}" for number in range(60))


def log(page: Page) -> Locator:
    return page.locator(".transcript:not([hidden]) .log")


def say(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")


def answers(page: Page) -> Locator:
    return log(page).locator(".answer:not([hidden]) > .text")


def questions(page: Page) -> Locator:
    return log(page).locator(".question > .text")


def new_conversation(page: Page) -> str:
    """Its id."""
    page.click("#new")
    expect(page.locator("#tools")).to_be_visible()
    return page.url.rpartition("/")[2]


def wait_until_answered(page: Page) -> None:
    expect(log(page).locator(".answer").last.get_by_role("button", name="Copy answer")).to_be_attached()


def kept(page: Page, conversation_id: str) -> list[str]:
    """What the server keeps of a conversation: who said each message."""
    url = f"{page.url.partition('#')[0]}api/conversations/{conversation_id}/messages"
    return [message["role"] for message in page.request.get(url).json()["messages"]]
