"""Messages, their answers, and what the engine keeps of them."""

from typing import Final

from bff import errors
from bff.api.adapters.ag_ui import RunAgentInput
from bff.api.adapters.ai_sdk import ChatTransportRequest
from bff.api.chat import PROTOCOLS
from bff.api.openapi import answers, events
from bff.api.openapi.operation import BEHIND, BODY, MINE, ONCE, PLACE, Answer, Operation, Parameter, text
from bff.api.preferences import Changes
from bff.upstream.messages import ChatRequest

STREAM: Final = Answer(
    "One event after the other; exactly one of them is terminal (complete, error, stopped), and it is the last.",
    headers={"Location": "Where it can be followed.", "X-Message-ID": "The message's id."},
    events={"message": events.ANSWER},
)
PROTOCOL: Final = Parameter(
    "protocol", {"enum": [*PROTOCOLS]}, "In whose words; in others than native, events are as that protocol has them."
)
IDS: Final = Parameter("ids", text(), "0: without the events' `id:` lines.")
RESUME: Final = Parameter("X-Chat-Resume", {"enum": ["1"]}, "This reader comes back by itself after a drain.", place="header")
AFTER: Final = (
    Parameter("Last-Event-ID", text(256), "Go on after this event; UTF-8, 256 bytes at most.", place="header"),
    Parameter("last_event_id", text(256), "The same, for a first request of EventSource."),
    Parameter("ticket", text(), "From POST /api/ticket."),
)
PART: Final = Answer("The part that `Range` asked for.", media_type="*/*", headers={"Content-Range": "Which part."})
PAGE: Final = (
    Parameter("limit", {"type": "integer"}, "1 to 50; what is beyond counts as that."),
    Parameter("offset", {"type": "integer", "minimum": 0, "maximum": 10**9}),
    Parameter("order", {"enum": ["oldest", "newest"]}, "newest: the last turn first, and offset counts from the end."),
)

OPERATIONS: Final = {
    "POST /api/chat/stream": Operation(
        "Say something; the answer streams back.",
        {200: STREAM},
        (*MINE, *BODY, *PLACE, *BEHIND, errors.Busy, errors.Expired, errors.IdempotencyConflict),
        body=(ChatRequest, ChatTransportRequest, RunAgentInput),
        parameters=(ONCE, RESUME, PROTOCOL, IDS),
    ),
    "GET /api/chat/stream/<message_id>": Operation(
        "Follow an answer from its start, or resume it.",
        {200: STREAM, 204: Answer("It has ended, and the reader has seen its end.")},
        (*MINE, *PLACE, *BEHIND, errors.NotFound, errors.Expired),
        parameters=(*AFTER, RESUME, PROTOCOL, IDS),
    ),
    "GET /api/chat/stream/<chat_id>/stream": Operation(
        "What this user said last, for the AI SDK, which asks by a chat id of its own.",
        {200: STREAM, 204: Answer("Nothing is being answered.")},
        (*MINE, *PLACE, *BEHIND, errors.NotFound, errors.Expired),
        parameters=(*AFTER, RESUME, PROTOCOL, IDS),
    ),
    "POST /api/chat/stream/<message_id>/stop": Operation(
        "Stop an answer, or take its message out of the queue. ParsedRequest again it changes nothing.",
        {202: Answer("It ends as soon as it can.", answers.Stopping)},
        (*MINE, *BEHIND, errors.NotFound, errors.Expired),
    ),
    "GET /api/chat/active": Operation(
        "This user's messages that wait or run.", {200: Answer("In their order.", answers.Active)}, (*MINE, *BEHIND)
    ),
    "POST /api/chat": Operation(
        "Say something; one JSON answer, from the engine itself.",
        {200: Answer("The answer.", answers.ChatReply)},
        (*MINE, *BODY, *PLACE, *BEHIND),
        body=ChatRequest,
    ),
    "GET /api/chat/history": Operation(
        "What was said and answered, page by page.",
        {200: Answer("A page.", answers.History)},
        (*MINE, *PLACE, *BEHIND),
        parameters=PAGE,
    ),
    "GET /api/preferences": Operation(
        "StreamOptions this user wants to be answered.",
        {200: Answer("All of it.", answers.Preferences)},
        (*MINE, *PLACE, *BEHIND),
    ),
    "PUT /api/preferences": Operation(
        "Change it. What is not named stays as it is.",
        {200: Answer("All of it, changed.", answers.Preferences)},
        (*MINE, *BODY, *PLACE, *BEHIND),
        body=Changes,
    ),
    "GET /api/audio": Operation(
        "A spoken answer of this user's, from the engine.",
        {200: Answer("All of it.", media_type="*/*"), 206: PART, 304: Answer("It is what the browser has.")},
        (*MINE, *PLACE, *BEHIND, errors.NotFound, errors.RangeNotSatisfiable),
        parameters=(
            Parameter("url", text(), "An answer's voice_audio_url.", required=True),
            Parameter("Range", text(), place="header"),
        ),
    ),
    "POST /api/ticket": Operation(
        "A ticket that lets an EventSource open one stream.", {201: Answer("The ticket.", answers.Ticket)}
    ),
}
