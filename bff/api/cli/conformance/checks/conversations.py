"""Replies in stored conversations, whose events have names."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from bff.api.cli.conformance.checks.errors import expect_error
from bff.api.cli.conformance.checks.resuming import AT_ONCE
from bff.api.cli.conformance.client import Response
from bff.api.cli.conformance.model import check
from bff.api.cli.conformance.outcomes import Failed, expect
from bff.api.cli.conformance.sse import EventStream, Frame
from bff.api.cli.conformance.target import JSON, TEXT, Target, User

CONVERSATIONS: Final = "docs/protocol.md#conversations"
PATH: Final = "/api/conversations"
ENDS: Final = frozenset({"done", "failure", "stopped"})
DEMO_AGENT: Final = "demo"
"""Understands `/slow`; where it is missing, the default agent replies."""


class NamedEvent(NamedTuple):
    name: str
    id: str
    content: dict[str, Any]


class Conversation:
    """A new conversation of a user."""

    def __init__(self, target: Target, user: User) -> None:
        """Raises ClientError, Failed."""
        agents = user.json("GET", "/api/agents").get("agents", [])
        is_demo = any(agent.get("id") == DEMO_AGENT for agent in agents)
        created = user.json("POST", PATH, {"agentId": DEMO_AGENT} if is_demo else {})
        self.path = f"{PATH}/{created.get('id')}"
        self._target = target
        self._user = user
        self._is_demo = is_demo

    def ask(self, seconds: float = 1.0) -> None:
        """`seconds`: how long the reply takes, if the agent is the demo agent."""
        content = f"/slow {seconds:g} {TEXT}" if self._is_demo else TEXT
        self._user.json("POST", f"{self.path}/messages", {"content": content})

    def request(self, query: str = "", after: str = "", user: User | None = None) -> Response:
        headers = {"Last-Event-ID": after} if after else {}
        return (user or self._user).request("GET", f"{self.path}/stream{query}", headers=headers)

    def stream(self, query: str = "?on_disconnect=continue", after: str = "") -> EventStream:
        """Raises ClientError, Failed for another status than 200."""
        response = self.request(query, after)
        if response.status != 200:
            response.close()
            raise Failed(f"the stream was answered with {response.status}")
        return EventStream(response, 0.0)

    def read(self, after: str = "") -> list[NamedEvent]:
        with self.stream(after=after) as stream:
            return events_of(stream.read_all(self._target.deadline()).frames)

    def messages(self) -> list[dict[str, Any]]:
        return list(self._user.json("GET", f"{self.path}/messages").get("messages", []))

    def stop(self) -> None:
        with self._user.request("POST", f"{self.path}/stop") as response:
            expect(response.status == 202, f"the stop was answered with {response.status}")

    def delete(self) -> None:
        self._user.request("DELETE", self.path).close()


def events_of(frames: list[Frame]) -> list[NamedEvent]:
    """Without comments and heartbeats."""
    named = [frame for frame in frames if frame.values("event")]
    return [NamedEvent(frame.values("event")[0], (frame.values("id") or [""])[-1], frame.content) for frame in named]


@contextmanager
def _with_question(target: Target, seconds: float = 1.0) -> Iterator[Conversation]:
    """A conversation with a question; it is deleted afterwards."""
    conversation = Conversation(target, target.user())
    try:
        conversation.ask(seconds)
        yield conversation
    finally:
        conversation.delete()


@check(
    "conversation.events",
    "A conversation's reply is streamed as tokens and one `done`, and stored under its id",
    rule=CONVERSATIONS,
    meaning="A conversation that is opened again has not the reply that was shown, or has it twice.",
)
def events(target: Target) -> str | None:
    with _with_question(target) as conversation:
        found = conversation.read()
        replies = [message for message in conversation.messages() if message.get("role") == "assistant"]
    names = [event.name for event in found]
    expect(names.count("done") == 1 and not ENDS & {*names[:-1]}, f"the events are {', '.join(names)[:200]}")
    expect(all(event.id for event in found), "an event has no id")
    text = "".join(str(event.content.get("token", "")) for event in found if event.name == "token")
    stored = [(reply.get("id"), reply.get("content")) for reply in replies]
    expect(stored == [(found[-1].content.get("messageId"), text)], f"stored is {json.dumps(stored)[:200]}")
    return f"{len(found)} events"


@check(
    "conversation.resume",
    "After each event of a conversation's reply, Last-Event-ID gets exactly the rest, and 204 after the last",
    rule=CONVERSATIONS,
    meaning="After a lost connection words are missing or shown twice, or EventSource reconnects forever.",
)
def resume(target: Target) -> str | None:
    with _with_question(target) as conversation:
        found = conversation.read()
        expect(all(event.id for event in found), "events have no ids, so nothing can be resumed")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            rests = list(pool.map(lambda event: conversation.read(event.id), found[:-1]))
        for number, rest in enumerate(rests):
            expect(rest == found[number + 1 :], f"after event {number + 1} of {len(found)} come {len(rest)} events")
        with conversation.request(after=found[-1].id) as response:
            expect(response.status == 204, f"after the last event the status is {response.status}")
    return f"{len(found) - 1} cuts"


@check(
    "conversation.answered",
    "A question that has its reply is not answered again: 204",
    rule=CONVERSATIONS,
    meaning="Each page that is loaded makes the agent reply once more, and EventSource does so forever.",
)
def answered(target: Target) -> str | None:
    with _with_question(target, 0.1) as conversation:
        conversation.read()
        with conversation.request() as response:
            expect(response.status == 204, f"the status is {response.status}")
    return None


@check(
    "conversation.tabs",
    "Several tabs follow one reply of a conversation, and another reply at that time is 409",
    rule=CONVERSATIONS,
    meaning="Each tab makes the agent reply, and the replies are mixed.",
)
def tabs(target: Target) -> str | None:
    with _with_question(target) as conversation, conversation.stream() as one, conversation.stream() as other:
        with conversation.request("?regenerate=conformance") as response:
            expect_error(target, response, 409, "busy")
        streams = [stream.read_all(target.deadline()) for stream in (one, other)]
        expect(events_of(streams[0].frames) == events_of(streams[1].frames), "the tabs received different events")
    return None


@check(
    "conversation.stop",
    "A stop ends a conversation's reply with `stopped`, for every tab",
    rule=CONVERSATIONS,
    meaning="The stop button does nothing.",
)
def stop(target: Target) -> str | None:
    with _with_question(target, target.options.timeout / 2) as conversation, conversation.stream() as stream:
        stream.read_some(target.deadline())
        conversation.stop()
        names = [event.name for event in events_of(stream.read_all(target.deadline()).frames)]
    expect(names and names[-1] == "stopped", f"the stream ends with {names[-1] if names else 'nothing'}")
    return None


@check(
    "conversation.foreign",
    "Another user's conversation is 404",
    rule=CONVERSATIONS,
    meaning="Whoever learns an id reads another user's conversation.",
)
def foreign(target: Target) -> str | None:
    other = target.other_user()
    with _with_question(target, 0.1) as conversation:
        with conversation.request(user=other) as response:
            expect_error(target, response, 404, "not_found")
        with other.request("POST", f"{conversation.path}/messages", b'{"content": "hello"}', JSON) as response:
            expect_error(target, response, 404, "not_found")
    return None
