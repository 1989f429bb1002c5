"""An HTTP client for conversations."""

import json
from collections.abc import Iterator
from typing import Any

from tests.live import Browser, Reply

ROOM = "/api/conversations"


class ConversationBrowser(Browser):
    def begin(self, text: str = "", **content: Any) -> str:
        """Creates a conversation, posts `text` to it if there is one, and returns the id."""
        conversation = self.request("POST", ROOM, content).json()["id"]
        if text:
            self.tell(conversation, text)
        return str(conversation)

    def tell(self, conversation: str, text: str) -> str:
        return str(self.request("POST", f"{ROOM}/{conversation}/messages", {"content": text}).json()["id"])

    def open_stream(self, conversation: str, query: str = "", **headers: str) -> Reply:
        return self.request("GET", f"{ROOM}/{conversation}/stream{query}", **headers)

    def stored_messages(self, conversation: str) -> list[dict[str, Any]]:
        """Of all branches, in the order in which they were stored."""
        return list(self.request("GET", f"{ROOM}/{conversation}/messages?branches=all").json()["messages"])

    def replies(self, conversation: str) -> list[dict[str, Any]]:
        return [message for message in self.stored_messages(conversation) if message["role"] == "assistant"]

    def change(self, conversation: str, **content: Any) -> dict[str, Any]:
        return dict(self.request("PATCH", f"{ROOM}/{conversation}", content).json())


def parse_frames(reply: Reply) -> Iterator[dict[str, Any]]:
    """The fields of each frame, with `data` parsed as JSON. A comment is {"comment": "…"}."""
    for frame in reply.frames():
        if frame.startswith(":"):
            yield {"comment": frame[1:].strip()}
            continue
        fields = dict(line.split(": ", 1) for line in frame.splitlines())
        yield fields | ({"data": json.loads(fields["data"])} if "data" in fields else {})


def tokens(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["data"]["token"] for frame in frames if frame.get("event") == "token"]
