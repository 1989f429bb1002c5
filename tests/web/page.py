"""The chat page in a visitor's hands."""

from pathlib import Path

from playwright.sync_api import Locator, Page, expect

MILLISECONDS = 30_000
"""Until something is seen: the machine may be busy."""
expect.set_options(timeout=MILLISECONDS)

WORDS = " ".join(f"word-{number}" for number in range(60))
EVERYTHING = """\
### Heading

Words with **weight**, `code` and [a link](https://example.org).

> A quotation.

1. one
   - two

```python
print("A line that is too long for a narrow page, so that its block scrolls from one side to the other")
```

| word | meaning |
|---|---|
| λόγος | word |
"""
"""What Markdown has."""


def settings(place: Path) -> dict[str, str]:
    """Of a server with the page."""
    return {
        "AUTH_MODE": "anonymous",
        "DATABASE_URL": f"sqlite:///{place}/chat.db",
        "ECHO_WORD_SECONDS": "0.02",
        "MESSAGES_PER_MINUTE": "10000",
    }


def log(page: Page) -> Locator:
    return page.locator(".transcript:not([hidden]) .log")


def say(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")


def answers(page: Page) -> Locator:
    return log(page).locator(".answer:not([hidden]) > .text")


def questions(page: Page) -> Locator:
    return log(page).locator(".question > .text")


def direct_chat(page: Page) -> Page:
    page.evaluate("location.hash = '#/direct'")
    expect(page.get_by_role("heading", name="Direct chat")).to_be_visible()
    return page


def conversation_id(page: Page) -> str:
    """Of the conversation that is shown, once it has been created by its first message."""
    page.wait_for_url("**/#/c/*")
    return page.url.rpartition("/")[2]


def wait_until_answered(page: Page) -> None:
    expect(log(page).locator(".answer").last.get_by_role("button", name="Copy answer")).to_be_attached()


def conversations(page: Page) -> Locator:
    """In the list at the side."""
    return page.locator("#conversations a:not(#direct)")


def root(page: Page) -> str:
    """The page's address, without what it shows."""
    return page.url.partition("#")[0]


def kept(page: Page, id_: str = "") -> list[str]:
    """The roles of the messages that the server keeps of a conversation, of the one that is shown where none is named."""
    url = f"{root(page)}api/conversations/{id_ or conversation_id(page)}/messages"
    return [message["role"] for message in page.request.get(url).json()["messages"]]
