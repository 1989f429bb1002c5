"""Streams of conversations' replies for `Clients` of tests/faults/load.py, which resume like `EventSource`."""

from typing import Any

from tests.db.talk import ConversationBrowser
from tests.faults.engine import call_numbers
from tests.faults.load import Clients, Stream, in_order
from tests.faults.model import Model
from tests.live import Reply, Server, head


class ConversationReader(Stream):
    """A reader of the reply to a conversation's last question."""

    def __init__(self, user: str, question: str, conversation_id: str, query: str = "") -> None:
        super().__init__(user, question, "", resumable=True)
        self.conversation_id = conversation_id
        self.query = query

    def request(self) -> bytes:
        after = [f"Last-Event-ID: {self.last_id}"] if self.last_id else []
        path = f"/api/conversations/{self.conversation_id}/stream{self.query}"
        return head("GET", path, "Accept: text/event-stream", *after, user=self.user)

    @property
    def text(self) -> str:
        return "".join(event["token"] for event in self.runs[-1] if event["type"] == "token")

    @property
    def statuses(self) -> list[int]:
        return [connection.wire.status for connection in self.connections]

    def is_complete(self, replies: list[dict[str, Any]]) -> bool:
        """Whether it received exactly the one stored reply, to its end."""
        if [reply["id"] for reply in replies] != [event.get("messageId") for event in self.events[-1:]]:
            return False
        return in_order(self.events) and self.end == "done" and self.text == replies[0]["content"]


class Conversation:
    """A new conversation of a user, with its first question."""

    def __init__(self, server: Server, user: str, question: str) -> None:
        self.talk = ConversationBrowser(server, user)
        self.question = question
        self.user = user
        self.id = self.talk.begin(question, agentId="openai")

    @property
    def replies(self) -> list[dict[str, Any]]:
        return self.talk.replies(self.id)

    def open_stream(self, query: str = "", **headers: str) -> Reply:
        return self.talk.open_stream(self.id, query, **headers)

    def tab(self, clients: Clients, query: str = "", *, disconnect_after_events: int | None = None) -> ConversationReader:
        tab = ConversationReader(self.user, self.question, self.id, query)
        tab.disconnect_after_events = disconnect_after_events
        clients.open(tab)
        return tab


def assert_stored_completely_or_not_at_all(conversation: Conversation, tabs: list[ConversationReader], model: Model) -> None:
    """Checks that at most one reply is stored, from one call of the model, and that `done` follows all of it with its id."""
    replies = conversation.replies
    assert len(replies) <= 1, replies
    for reply in replies:
        [call_number] = call_numbers(reply["content"])
        word_count = int(conversation.question.split()[1])
        assert len(reply["content"].split()) == word_count, reply["content"]
        assert call_number <= model.calls[conversation.question]
    for tab in tabs:
        if tab.end == "done":
            assert tab.is_complete(replies), (tab.events, replies)
