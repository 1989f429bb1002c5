"""The test suite that every client protocol passes: its adapter keeps the text, the tools and the end of each reply."""

import json
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.api.adapters import conversation
from bff.api.adapters.ag_ui import AG_UI
from bff.api.adapters.ai_sdk import AI_SDK
from bff.api.adapters.base import ResumePoint, Sent, chat_id_key, translate
from bff.api.adapters.native import NATIVE
from bff.api.adapters.openai import OPENAI
from bff.errors import InvalidRequest
from bff.http.sse import Event, encode
from bff.upstream.relay import Relay
from tests.api.adapters import readers
from tests.frames import decoded
from tests.live import ROOT

CASES = json.loads((ROOT / "tests" / "cases" / "relay.json").read_text())["cases"]
PROTOCOLS = {
    "native": (NATIVE, readers.native),
    "ai-sdk": (AI_SDK, readers.ai_sdk),
    "ag-ui": (AG_UI, readers.ag_ui),
    "openai": (OPENAI, readers.openai),
}
CONTEXT = {"threadId": "thread-1", "runId": "run-1", "model": "default", "created": 1795174194}
REPLY = [
    {"type": "status", "message": "Message queued...", "position": 1},
    {"type": "keepalive"},
    {"type": "progress", "text": "For God "},
    {"type": "tool_use", "tool": "fetch", "input": {"reference": "John 3:16"}},
    {"type": "tool_result", "tool": "fetch", "result": {"text": "so loved"}},
    {"type": "progress", "text": "so loved "},
    {"type": "progress", "text": "the world"},
    {"type": "complete", "response": {"responses": ["For God so loved the world"], "response_language": "en"}},
]
every_protocol = pytest.mark.parametrize("name", PROTOCOLS)
every_encoder = pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "native"])


def numbered(contents) -> list[Event]:
    return [Event("", json.dumps(content), f"{number}-0") for number, content in enumerate(contents, start=1)]


def encoded(name: str, reply, sent: Sent = Sent.NOTHING) -> list[Event | None]:
    encoder = PROTOCOLS[name][0].encoder
    return list(translate(reply, encoder("m-1", CONTEXT, sent)) if encoder else reply)


def read(name: str, events):
    return PROTOCOLS[name][1](event.data for event in events if event)


def relayed(case) -> list[Event | None]:
    return list(Relay("request-1")(decoded([b64decode(case["bytes_base64"])])))


@every_protocol
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_text_and_end_are_those_of_the_native_protocol(name, case):
    reply = relayed(case)

    reading, native = read(name, encoded(name, reply)), read("native", reply)

    assert reading.end == ("complete" if name == "openai" and native.end == "stopped" else native.end)
    separator = "\n\n" if name == "openai" and not any("progress" in event.data for event in reply if event) else ""
    assert reading.text == separator.join(native.texts)


@every_protocol
def test_a_reply_with_tools_keeps_its_text_and_end(name):
    reading = read(name, encoded(name, numbered(REPLY)))

    assert (reading.text, reading.end) == ("For God so loved the world", "complete")


@pytest.mark.parametrize(
    ("name", "output"), [("ai-sdk", {"text": "so loved"}), ("ag-ui", '{"text": "so loved"}')]
)  # fmt: skip
def test_a_tool_call_separates_two_texts(name, output):
    reading = read(name, encoded(name, numbered(REPLY)))

    assert reading.texts == ["For God ", "so loved the world"]
    assert reading.tools == [("fetch", {"reference": "John 3:16"}, output)]


REASONING = [{"type": "reasoning", "text": "Let me "}, {"type": "reasoning", "text": ""}, {"type": "reasoning", "text": "see."}]
ui_protocols = pytest.mark.parametrize("name", ["ai-sdk", "ag-ui"])


@ui_protocols
def test_reasoning_is_shown_apart_from_the_text(name):
    text, more, complete = REPLY[2], REPLY[5], REPLY[-1]

    reading = read(name, encoded(name, numbered([*REASONING, text, *REASONING, REPLY[3], *REASONING, more, complete])))

    assert reading.reasoning == ["Let me see."] * 3
    assert reading.texts == ["For God ", "so loved "]


@ui_protocols
@pytest.mark.parametrize("end", [{"type": "complete"}, {"type": "stopped"}], ids=lambda end: end["type"])
def test_the_end_of_a_reply_ends_its_reasoning(name, end):
    reading = read(name, encoded(name, numbered([*REASONING, end | {"response": {"responses": ["ok"]}}])))

    assert (reading.reasoning, reading.texts, reading.end) == (["Let me see."], ["ok"], end["type"])


@ui_protocols
@pytest.mark.parametrize("text", [None, 5, ["a"]])
def test_invalid_reasoning_is_left_out(name, text):
    assert read(name, encoded(name, numbered([{"type": "reasoning", "text": text}, REPLY[-1]]))).reasoning == []


def test_openai_has_no_reasoning():
    reading = read("openai", encoded("openai", numbered([*REASONING, REPLY[2], REPLY[-1]])))

    assert (reading.text, reading.end) == ("For God ", "complete")


@every_encoder
@pytest.mark.parametrize("truncated", [True, False])
def test_a_truncated_reply_is_complete_with_its_reason(name, truncated):
    response = {"responses": ["For God"], "truncated": True} if truncated else {"responses": ["For God"], "truncated": "no"}

    reading = read(name, encoded(name, numbered([{"type": "complete", "response": response}])))

    assert (reading.text, reading.end, reading.is_truncated) == ("For God", "complete", truncated)


@pytest.mark.parametrize("truncated", [True, False])
def test_a_conversation_has_the_reason_with_the_end(truncated):
    response = {"responses": ["ok"], "message_id": "m-7"} | ({"truncated": True} if truncated else {})

    [done] = conversation.encode(numbered([{"type": "complete", "response": response}]), restarted=False)

    assert json.loads(done.data) == {"messageId": "m-7"} | ({"truncated": True} if truncated else {})


@every_encoder
def test_none_is_passed_on_at_once(name):
    encoder = PROTOCOLS[name][0].encoder("m-1", CONTEXT, Sent.NOTHING)
    stream = translate(iter([None, Event("", json.dumps(REPLY[2]))]), encoder)

    assert next(stream, 0) is None


@every_encoder
@pytest.mark.parametrize("end", [{"type": "stopped"}, {"type": "complete"}], ids=lambda end: end["type"])
def test_unstreamed_text_is_sent_with_the_final_event(name, end):
    reply = numbered([end | {"response": {"responses": ["one", "", "two"], "voice_audio_base64": None}}])

    assert read(name, encoded(name, reply)).text in {"onetwo", "one\n\ntwo"}


# Event ids: where a reader resumes


@every_encoder
def test_a_resumed_reader_gets_the_remaining_text_only(name):
    reply = numbered(REPLY)
    whole = encoded(name, reply)

    for cut, event in enumerate(whole, start=1):
        if event.id:
            after, sent = ResumePoint.of(event.id)
            first = read(name, whole[:cut])
            rest = read(name, encoded(name, reply[int(after[0]) :], sent))
            assert first.text + rest.text == "For God so loved the world"
            assert first.end + rest.end == "complete"


@every_encoder
def test_only_the_last_event_of_several_carries_the_id(name):
    events = encoded(name, numbered(REPLY[2:]))

    ids = [event.id for event in events]
    assert ids[0] == "", "the start of a text has no id, so a reader that got only that gets it again"
    assert len([name for name in ids if name]) == len({name for name in ids if name})
    assert ResumePoint.of(ids[-1]) == ResumePoint("6-0", Sent.END)


@every_encoder
def test_events_without_ids_stay_without_ids(name):
    assert not any(event.id for event in encoded(name, [Event("", json.dumps(content)) for content in REPLY]))


# Restarted replies


TEXT, STATUS, TOOL, COMPLETE = REPLY[2], REPLY[0], REPLY[3], REPLY[-1]
NO_OUTPUT = [STATUS, {"type": "progress", "text": ""}, {"type": "reasoning", "text": "Well"}, {"type": "keepalive"}]
OUTPUT = {"text": [TEXT], "a tool": [TOOL], "text and a tool": [TEXT, TOOL]}


def relayed_and_encoded(name: str, reply, sent: Sent = Sent.NOTHING) -> list[Event]:
    """The events for a reader that was sent `sent` before it resumed."""
    encoder = PROTOCOLS[name][0].encoder("m-1", CONTEXT, sent)
    relay = Relay("request-1", irrevocable=lambda: encoder.sent > Sent.NOTHING)
    return [event for event in translate(relay(reply), encoder) if event]


def restarted(before) -> list[Event]:
    return numbered([*before, {"type": "restart"}, STATUS, TEXT, COMPLETE])


@every_encoder
def test_a_restart_before_any_output_is_invisible(name):
    reading = read(name, relayed_and_encoded(name, restarted(NO_OUTPUT)))

    assert (reading.text, reading.end) == ("For God ", "complete")


@ui_protocols
def test_a_restart_ends_the_reasoning_before_it(name):
    reply = numbered([*REASONING, {"type": "restart"}, *REASONING, TEXT, COMPLETE])

    assert read(name, relayed_and_encoded(name, reply)).reasoning == ["Let me see."] * 2


@every_encoder
@pytest.mark.parametrize("before", [OUTPUT["text"], [*NO_OUTPUT, TEXT], OUTPUT["text and a tool"]])
def test_a_restart_after_text_ends_the_reply_with_an_error(name, before):
    events = relayed_and_encoded(name, restarted(before))
    reading = read(name, events)

    assert (reading.text, reading.end) == ("For God ", "error")
    assert any('"code":"interrupted"' in event.data for event in events)


@ui_protocols
def test_a_restart_after_a_tool_call_ends_the_reply_with_an_error(name):
    assert read(name, relayed_and_encoded(name, restarted([TOOL]))).end == "error"


def test_a_tool_call_is_no_output_for_openai():
    reading = read("openai", relayed_and_encoded("openai", restarted([TOOL])))

    assert (reading.text, reading.end) == ("For God ", "complete")


@every_encoder
def test_a_second_restart_after_text_ends_the_reply_with_an_error(name):
    reply = numbered([STATUS, {"type": "restart"}, TEXT, {"type": "restart"}, TEXT, COMPLETE])

    assert read(name, relayed_and_encoded(name, reply)).end == "error"


@ui_protocols
@pytest.mark.parametrize("before", [*OUTPUT.values(), NO_OUTPUT], ids=[*OUTPUT, "nothing"])
def test_a_resumed_reader_gets_the_same_end(name, before):
    reply = restarted(before)
    whole = relayed_and_encoded(name, reply)

    for event in whole:
        after, sent = ResumePoint.of(event.id)
        if after and sent is not Sent.END:
            rest = relayed_and_encoded(name, reply[int(after.partition("-")[0]) :], sent)
            assert read(name, rest).end == read(name, whole).end
    assert ResumePoint.of(whole[-1].id).sent is Sent.END


@pytest.mark.parametrize("sent", Sent)
def test_an_event_id_encodes_what_was_sent(sent):
    assert ResumePoint.of(ResumePoint("7-0", sent).as_id()) == ResumePoint("7-0", sent)


@pytest.mark.parametrize(
    ("after", "sent"),
    [("", Sent.TEXT), ("x" * 256, Sent.TEXT), *((f"7;{suffix}", Sent.NOTHING) for suffix in ("tool", "text", "end"))],
)
def test_an_ambiguous_or_too_long_event_id_is_left_out(after, sent):
    assert ResumePoint(after, sent).as_id() == ""


def test_the_native_protocol_passes_a_restart_on():
    reply = restarted([TEXT])

    assert [event.data for event in Relay("request-1")(reply)] == [event.data for event in reply]


def test_a_conversation_gets_the_restart_event_with_its_id():
    events = list(conversation.encode(Relay("request-1")(restarted([TEXT])), restarted=False))

    assert events[0].event == "token"
    assert events[1] == Event("restart", "{}", "2-0")
    assert [event.event for event in events[2:]] == ["token", "done"]


# Unusual events from engines


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "tool", "name", "text"]), inner),
    max_leaves=4,
)
TYPES = st.sampled_from(
    ["tool_use", "tool_result", "progress", "reasoning", "restart", "status", "thinking", "keepalive", "data-x", ""]
)
FIELDS = st.sampled_from(["tool", "name", "id", "tool_use_id", "input", "result", "content", "text", "message", "delta"])


@every_encoder
@given(st.lists(st.tuples(TYPES, st.dictionaries(FIELDS, JSON, max_size=3)), max_size=6))
def test_unknown_event_shapes_do_not_break_a_reply(name, contents):
    unusual = [fields | {"type": kind} for kind, fields in contents]

    events = encoded(name, numbered([*unusual, REPLY[-1]]))

    assert read(name, events).end == "complete"
    for event in events:
        encode(event)


@pytest.mark.parametrize("name", ["ai-sdk", "ag-ui"])
@pytest.mark.parametrize("data", ["1e999", "[" * 900 + "]" * 900], ids=["infinite", "deep"])
def test_values_that_json_cannot_represent_become_null(name, data):
    reply = [
        Event("", f'{{"type":"tool_use","tool":"t","input":{data}}}'),
        Event("", f'{{"type":"tool_result","tool":"t","result":{data}}}'),
        *numbered(REPLY[-1:]),
    ]

    events = encoded(name, reply)

    assert read(name, events).end == "complete"
    assert "Infinity" not in str(events)


@pytest.mark.parametrize("name", ["ai-sdk", "ag-ui"])
def test_tool_results_match_calls_by_id_then_by_name_and_order(name):
    reply = [
        {"type": "tool_use", "tool": "a", "input": 1},
        {"type": "tool_use", "tool": "a", "input": 2},
        {"type": "tool_use", "id": "call-3", "name": "b", "args": 3},
        {"type": "tool_result", "tool_use_id": "call-3", "content": "three"},
        {"type": "tool_result", "tool": "a", "result": "one"},
        {"type": "tool_result", "tool": "a", "result": "two"},
        {"type": "tool_result", "tool": "c", "result": "of an unknown call"},
        REPLY[-1],
    ]

    tools = read(name, encoded(name, numbered(reply))).tools

    nothing = {"ai-sdk": None, "ag-ui": {}}[name]
    assert tools == [("b", 3, "three"), ("a", 1, "one"), ("a", 2, "two"), ("c", nothing, "of an unknown call")]


# Requests


REQUESTS = {
    "ai-sdk": {"messages": [{"role": "user", "id": "id-1", "parts": [{"type": "text", "text": "hi"}]}]},
    "ag-ui": {"threadId": "t", "runId": "id-1", "messages": [{"role": "user", "id": "x", "content": "hi"}]},
    "openai": {"model": "default", "messages": [{"role": "system", "content": "…"}, {"role": "user", "content": "hi"}]},
    "native": {"message": "hi", "client_message_id": "id-1"},
}


@every_protocol
def test_a_request_is_parsed_to_its_last_message(name):
    parsed = json.loads(PROTOCOLS[name][0].parse_request(json.dumps(REQUESTS[name]).encode()).body)

    assert parsed == {"message": "hi"} | ({} if name == "openai" else {"client_message_id": "id-1"})


APP_PARTS = [
    {"type": "step-start"},
    {"type": "data-location", "data": {"city": "Antioch"}},
    {"type": "reasoning", "text": "hm"},
    {"type": "source-url", "sourceId": "s-1", "url": "https://example.org"},
    {"type": "source-document", "sourceId": "s-2", "mediaType": "text/plain", "title": "t"},
]


def user_message(name: str, parts: object) -> bytes:
    field = "parts" if name == "ai-sdk" else "content"
    return json.dumps({"model": "default", "messages": [{"role": "user", "id": "u-1", field: parts}]}).encode()


@every_encoder
def test_parts_that_are_meant_for_the_app_are_ignored(name):
    parts = [*APP_PARTS, {"type": "text", "text": "hi"}, *APP_PARTS]

    assert json.loads(PROTOCOLS[name][0].parse_request(user_message(name, parts)).body)["message"] == "hi"


@every_encoder
@pytest.mark.parametrize("kind", ["file", "image", "image_url", "input_audio", "binary", "document", "reasoning-file"])
def test_files_and_images_are_refused_with_a_sentence(name, kind):
    parts = [{"type": "text", "text": "hi"}, {"type": kind, "url": "data:image/png;base64,"}]

    with pytest.raises(InvalidRequest, match="files and images are not supported"):
        PROTOCOLS[name][0].parse_request(user_message(name, parts))


@every_encoder
@pytest.mark.parametrize("parts", [APP_PARTS, [], None, 5, [{"type": "text"}], [None]])
def test_a_message_without_text_is_refused(name, parts):
    with pytest.raises(InvalidRequest):
        PROTOCOLS[name][0].parse_request(user_message(name, parts))


def test_ag_ui_messages_that_are_meant_for_the_app_are_ignored():
    messages = [{"role": "user", "content": "hi"}, {"role": "reasoning", "content": "hm"}, {"role": "activity", "content": {}}]

    parsed = AG_UI.parse_request(json.dumps({"messages": messages}).encode())

    assert json.loads(parsed.body)["message"] == "hi"
    with pytest.raises(InvalidRequest):
        AG_UI.parse_request(json.dumps({"messages": messages[1:]}).encode())


@pytest.mark.parametrize(
    ("name", "field", "chat_id", "key"),
    [
        ("ai-sdk", "id", "chat-1", "chat-1"),
        ("ag-ui", "threadId", "thread-1", "thread-1"),
        ("ai-sdk", "id", "ἀρχῇ / 1", "ἀρχῇ / 1"),
        ("ai-sdk", "id", 5, ""),
        ("ai-sdk", "id", None, ""),
    ],
)
def test_the_chats_id_is_parsed(name, field, chat_id, key):
    assert PROTOCOLS[name][0].parse_request(json.dumps(REQUESTS[name] | {field: chat_id}).encode()).chat_id == key


def test_a_long_chat_id_has_a_short_key():
    ids = ["a" * 1000, "a" * 999 + "b", "\ud800" * 200]

    assert len({chat_id_key(chat_id) for chat_id in ids}) == 3
    assert all(len(chat_id_key(chat_id)) == 64 for chat_id in ids)


def test_the_native_protocol_changes_nothing():
    assert NATIVE.encoder is None
    assert NATIVE.parse_request(b"{}").body == b"{}"
