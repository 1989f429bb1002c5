"""Readers of conversations' replies for a crowd (tests/faults/load.py), each as `EventSource` is one."""

from typing import Any

from tests.db.talk import Talk
from tests.faults.engine import askings
from tests.faults.load import Crowd, Stream, in_order
from tests.faults.model import Model
from tests.live import Reply, Server, head


class Tab(Stream):
    """One reader of the reply to a conversation's last question."""

    def __init__(self, user: str, question: str, conversation: str, query: str = "") -> None:
        super().__init__(user, question, "", comes_back=True)
        self.conversation = conversation
        self.query = query

    def request(self) -> bytes:
        after = [f"Last-Event-ID: {self.last_id}"] if self.last_id else []
        path = f"/api/conversations/{self.conversation}/stream{self.query}"
        return head("GET", path, "Accept: text/event-stream", *after, user=self.user)

    @property
    def text(self) -> str:
        return "".join(event["token"] for event in self.runs[-1] if event["type"] == "token")

    @property
    def statuses(self) -> list[int]:
        return [connection.wire.status for connection in self.connections]

    def is_whole(self, replies: list[dict[str, Any]]) -> bool:
        """It was told, to its end, the one reply that is stored, and nothing twice."""
        if [reply["id"] for reply in replies] != [event.get("messageId") for event in self.events[-1:]]:
            return False
        return in_order(self.events) and self.end == "done" and self.text == replies[0]["content"]


class Room:
    """A user's new conversation with its first question."""

    def __init__(self, server: Server, user: str, question: str) -> None:
        self.talk = Talk(server, user)
        self.question = question
        self.user = user
        self.id = self.talk.begin(question, agentId="openai")

    @property
    def replies(self) -> list[dict[str, Any]]:
        return self.talk.replies(self.id)

    def hear(self, query: str = "", **headers: str) -> Reply:
        return self.talk.hear(self.id, query, **headers)

    def tab(self, crowd: Crowd, query: str = "", *, leave_at: int | None = None) -> Tab:
        tab = Tab(self.user, self.question, self.id, query)
        tab.leave_at = leave_at
        crowd.open(tab)
        return tab


def assert_stored_whole_or_not_at_all(room: Room, tabs: list[Tab], model: Model) -> None:
    """At most one reply, said in one call of the model; whoever was told `done` was told all of it, and its id."""
    replies = room.replies
    assert len(replies) <= 1, replies
    for reply in replies:
        [asking] = askings(reply["content"])
        words = int(room.question.split()[1])
        assert len(reply["content"].split()) == words, reply["content"]
        assert asking <= model.asked[room.question]
    for tab in tabs:
        if tab.end == "done":
            assert tab.is_whole(replies), (tab.events, replies)
