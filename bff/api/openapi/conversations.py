"""Conversations, their messages, and the agents that reply."""

from typing import Final

from bff import errors
from bff.api.openapi import answers, events
from bff.api.openapi.chat import AFTER, IDS
from bff.api.openapi.operation import BEHIND, BODY, MINE, PLACE, Answer, Operation, Parameter, text
from bff.api.schemas import EditMessage, NewConversation, NewMessage, StreamMessage, UpdateConversation

KEPT: Final = (*MINE, errors.NotFound, errors.UpstreamUnavailable)
"""What any door to what is kept may answer: the database may be away."""
PAGE: Final = (
    Parameter("limit", {"type": "integer", "minimum": 0, "maximum": 10**9 - 1}, "50; 1 to 100, what is beyond counts as that."),
    Parameter("cursor", text(), "The last page's nextCursor."),
)
ONE: Final = "/api/conversations/<uuid:conversation_id>"

OPERATIONS: Final = {
    "GET /api/agents": Operation("Who may reply.", {200: Answer("All of them.", answers.Agents)}),
    "GET /api/conversations": Operation(
        "This user's conversations, newest activity first.",
        {200: Answer("A page.", answers.Conversations)},
        KEPT,
        parameters=PAGE,
    ),
    "POST /api/conversations": Operation(
        "Begin one.", {201: Answer("It has begun.", answers.Conversation)}, (*KEPT, *BODY), body=NewConversation
    ),
    f"GET {ONE}": Operation("One of them.", {200: Answer("It.", answers.Conversation)}, KEPT),
    f"PATCH {ONE}": Operation(
        "Change what is named; null clears it.",
        {200: Answer("It, changed.", answers.Conversation)},
        (*KEPT, *BODY),
        body=UpdateConversation,
    ),
    f"DELETE {ONE}": Operation("Delete it and all its messages.", {204: Answer("It is gone.")}, KEPT),
    f"GET {ONE}/messages": Operation(
        "What was said in it, oldest first.", {200: Answer("A page.", answers.Messages)}, KEPT, parameters=PAGE
    ),
    f"POST {ONE}/messages": Operation(
        "Say something in it.",
        {201: Answer("It is kept.", answers.ConversationMessage)},
        (*KEPT, *BODY, errors.TooManyRequests),
        body=NewMessage,
    ),
    f"PUT {ONE}/messages/<uuid:message_id>": Operation(
        "Say it better: agents are told the new words, the old ones are kept.",
        {200: Answer("It, edited.", answers.ConversationMessage)},
        (*KEPT, *BODY),
        body=EditMessage,
    ),
    f"GET {ONE}/stream": Operation(
        "An agent's reply to the last message, or to `messageId`.",
        {
            200: Answer(
                "Pieces, then the end. Whoever asks while it is written joins it.",
                headers={
                    "Location": "Where it can be followed.",
                    "X-Message-ID": "The id of its message in the queue.",
                },
                events=events.REPLY,
            ),
            204: Answer("It is answered already, or the reader has seen its end."),
        },
        (*KEPT, *PLACE, *BEHIND, errors.Busy),
        query=StreamMessage,
        parameters=(*AFTER, IDS),
    ),
    f"POST {ONE}/stop": Operation(
        "Stop the reply that is being written. ParsedRequest again it changes nothing.",
        {202: Answer("It ends as soon as it can.", answers.Stopping)},
        (*KEPT, *BEHIND),
    ),
}
