"""Actions and locators for tests of the chat page."""

from pathlib import Path

from playwright.sync_api import Locator, Page, Route, expect

TIMEOUT_MS = 30_000
"""Timeout of expectations (milliseconds); allows for a busy machine."""
expect.set_options(timeout=TIMEOUT_MS)

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
"""A text with every Markdown element."""


def page_settings(folder: Path) -> dict[str, str]:
    """The settings of a server with the page."""
    return {
        "AUTH_MODE": "anonymous",
        "DATABASE_URL": f"sqlite:///{folder}/chat.db",
        "ECHO_WORD_SECONDS": "0.02",
        "MESSAGES_PER_MINUTE": "10000",
    }


def transcript(page: Page) -> Locator:
    return page.locator(".transcript:not([hidden]) .log")


def send(page: Page, text: str) -> None:
    """Once it is possible: in a conversation not before the end of the last reply, which is later than its last word."""
    expect(page.locator("#send")).to_be_visible()
    page.fill("#text", text)
    page.press("#text", "Enter")


def replies(page: Page) -> Locator:
    return transcript(page).locator(".answer:not([hidden]) > .text")


def questions(page: Page) -> Locator:
    return transcript(page).locator(".question > .text")


def direct_chat(page: Page) -> Page:
    page.evaluate("location.hash = '#/direct'")
    expect(page.get_by_role("heading", name="Direct chat")).to_be_visible()
    return page


def conversation_id(page: Page) -> str:
    """The id of the conversation shown, once its first message has created it."""
    page.wait_for_url("**/#/c/*")
    return page.url.rpartition("/")[2]


def wait_for_reply(page: Page) -> None:
    expect(transcript(page).locator(".answer").last.get_by_role("button", name="Copy answer")).to_be_attached()


def conversations(page: Page) -> Locator:
    """Links in the sidebar."""
    return page.locator("#conversations a:not(#direct)")


def root(page: Page) -> str:
    """The page's URL without the fragment."""
    return page.url.partition("#")[0]


def stored_roles(page: Page, id_: str = "") -> list[str]:
    """The roles of a conversation's messages in all branches; by default of the conversation shown."""
    url = f"{root(page)}api/conversations/{id_ or conversation_id(page)}/messages?branches=all"
    return [message["role"] for message in page.request.get(url).json()["messages"]]


def stop_clock(page: Page) -> None:
    """Keeps what is shown for some seconds only, until `page.clock.run_for(milliseconds)`."""
    page.clock.install(time=0)
    page.clock.pause_at(1000)


class HeldRequest:
    """Holds the first request to `url` until it is continued."""

    def __init__(self, page: Page, url: str, method: str = "GET") -> None:
        self._page = page
        self._method = method
        self._held: Route | None = None
        page.route(url, self._hold)

    def _hold(self, route: Route) -> None:
        if self._held is None and route.request.method == self._method:
            self._held = route
        else:
            route.fallback()

    def wait(self) -> Route:
        while self._held is None:
            self._page.evaluate("new Promise(requestAnimationFrame)")
        return self._held
