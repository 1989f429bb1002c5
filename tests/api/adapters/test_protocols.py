"""The one suite that every protocol passes: whatever the relay says is said, in an order that its clients can read."""

import json
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.api.adapters import conversation
from bff.api.adapters.ag_ui import AG_UI
from bff.api.adapters.ai_sdk import AI_SDK
from bff.api.adapters.base import ResumePoint, Sent, translate
from bff.api.adapters.native import NATIVE
from bff.api.adapters.openai import OPENAI
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
ABOUT = {"threadId": "thread-1", "runId": "run-1", "model": "default", "created": 1795174194}
ANSWER = [
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
every_translator = pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "native"])


def numbered(contents) -> list[Event]:
    return [Event("", json.dumps(content), f"{number}-0") for number, content in enumerate(contents, start=1)]


def said(name: str, answer, sent: Sent = Sent.NOTHING) -> list[Event | None]:
    encoder = PROTOCOLS[name][0].encoder
    return list(translate(answer, encoder("m-1", ABOUT, sent)) if encoder else answer)


def read(name: str, events):
    return PROTOCOLS[name][1](event.data for event in events if event)


def relayed(case) -> list[Event | None]:
    return list(Relay("request-1")(decoded([b64decode(case["bytes_base64"])])))


@every_protocol
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_whatever_the_relay_says_is_read_with_the_same_text_and_the_same_end(name, case):
    answer = relayed(case)

    reading, ours = read(name, said(name, answer)), read("native", answer)

    assert reading.end == ("complete" if name == "openai" and ours.end == "stopped" else ours.end)
    separator = "\n\n" if name == "openai" and not any("progress" in event.data for event in answer if event) else ""
    assert reading.text == separator.join(ours.texts)


@every_protocol
def test_an_answer_with_tools_is_read_whole(name):
    reading = read(name, said(name, numbered(ANSWER)))

    assert (reading.text, reading.end) == ("For God so loved the world", "complete")


@pytest.mark.parametrize(
    ("name", "output"), [("ai-sdk", {"text": "so loved"}), ("ag-ui", '{"text": "so loved"}')]
)  # fmt: skip
def test_a_tool_stands_between_two_texts(name, output):
    reading = read(name, said(name, numbered(ANSWER)))

    assert reading.texts == ["For God ", "so loved the world"]
    assert reading.tools == [("fetch", {"reference": "John 3:16"}, output)]


@every_translator
def test_what_is_not_there_yet_is_passed_on_as_such(name):
    encoder = PROTOCOLS[name][0].encoder("m-1", ABOUT, Sent.NOTHING)
    stream = translate(iter([None, Event("", json.dumps(ANSWER[2]))]), encoder)

    assert next(stream, 0) is None


@every_translator
@pytest.mark.parametrize("end", [{"type": "stopped"}, {"type": "complete"}], ids=lambda end: end["type"])
def test_an_answer_that_came_in_one_piece_is_said_all_the_same(name, end):
    answer = numbered([end | {"response": {"responses": ["one", "", "two"], "voice_audio_base64": None}}])

    assert read(name, said(name, answer)).text in {"onetwo", "one\n\ntwo"}


# Ids: where a reader goes on


@every_translator
def test_whoever_comes_back_reads_what_follows_and_only_that(name):
    answer = numbered(ANSWER)
    whole = said(name, answer)

    for cut, event in enumerate(whole, start=1):
        if event.id:
            after, sent = ResumePoint.of(event.id)
            heard = read(name, whole[:cut])
            rest = read(name, said(name, answer[int(after[0]) :], sent))
            assert heard.text + rest.text == "For God so loved the world"
            assert heard.end + rest.end == "complete"


@every_translator
def test_an_id_is_said_with_the_last_of_what_says_an_event(name):
    events = said(name, numbered(ANSWER[2:]))

    ids = [event.id for event in events]
    assert ids[0] == "", "text has a beginning, and whoever has read only that needs it again"
    assert len([name for name in ids if name]) == len({name for name in ids if name})
    assert ResumePoint.of(ids[-1]) == ResumePoint("6-0", Sent.END)


@every_translator
def test_events_without_ids_stay_so(name):
    assert not any(event.id for event in said(name, [Event("", json.dumps(content)) for content in ANSWER]))


# An answer that begins anew


TEXT, STATUS, TOOL, COMPLETE = ANSWER[2], ANSWER[0], ANSWER[3], ANSWER[-1]
ONLY_FOR_SHOW = [STATUS, {"type": "progress", "text": ""}, {"type": "reasoning", "text": "Well"}, {"type": "keepalive"}]
OUTPUT = {"text": [TEXT], "a tool": [TOOL], "text and a tool": [TEXT, TOOL]}
unable = pytest.mark.parametrize("name", ["ai-sdk", "ag-ui"])


def relay_and_say(name: str, answer, sent: Sent = Sent.NOTHING) -> list[Event]:
    """As a reader is told who resumes with `sent`."""
    encoder = PROTOCOLS[name][0].encoder("m-1", ABOUT, sent)
    relay = Relay("request-1", irrevocable=lambda: encoder.sent > Sent.NOTHING)
    return [event for event in translate(relay(answer), encoder) if event]


def restarted(before) -> list[Event]:
    return numbered([*before, {"type": "restart"}, STATUS, TEXT, COMPLETE])


@every_translator
def test_a_restart_before_any_output_goes_unnoticed(name):
    reading = read(name, relay_and_say(name, restarted(ONLY_FOR_SHOW)))

    assert (reading.text, reading.end) == ("For God ", "complete")


@every_translator
@pytest.mark.parametrize("before", [OUTPUT["text"], [*ONLY_FOR_SHOW, TEXT], OUTPUT["text and a tool"]])
def test_a_restart_after_text_ends_it_with_an_error(name, before):
    events = relay_and_say(name, restarted(before))
    reading = read(name, events)

    assert (reading.text, reading.end) == ("For God ", "error")
    assert any('"code":"interrupted"' in event.data for event in events)


@unable
def test_a_restart_after_a_tool_ends_it_with_an_error(name):
    assert read(name, relay_and_say(name, restarted([TOOL]))).end == "error"


def test_a_tool_of_which_openais_clients_are_not_told_is_no_output():
    reading = read("openai", relay_and_say("openai", restarted([TOOL])))

    assert (reading.text, reading.end) == ("For God ", "complete")


@every_translator
def test_a_second_restart_ends_what_the_first_did_not(name):
    answer = numbered([STATUS, {"type": "restart"}, TEXT, {"type": "restart"}, TEXT, COMPLETE])

    assert read(name, relay_and_say(name, answer)).end == "error"


@unable
@pytest.mark.parametrize("before", [*OUTPUT.values(), ONLY_FOR_SHOW], ids=[*OUTPUT, "nothing"])
def test_whoever_resumes_is_told_the_same_end(name, before):
    answer = restarted(before)
    whole = relay_and_say(name, answer)

    for event in whole:
        after, sent = ResumePoint.of(event.id)
        if after and sent is not Sent.END:
            rest = relay_and_say(name, answer[int(after.partition("-")[0]) :], sent)
            assert read(name, rest).end == read(name, whole).end
    assert ResumePoint.of(whole[-1].id).sent is Sent.END


@pytest.mark.parametrize("sent", Sent)
def test_an_id_says_what_was_sent(sent):
    assert ResumePoint.of(ResumePoint("7-0", sent).as_id()) == ResumePoint("7-0", sent)


@pytest.mark.parametrize(
    ("after", "sent"),
    [("", Sent.TEXT), ("x" * 256, Sent.TEXT), *((f"7;{suffix}", Sent.NOTHING) for suffix in ("tool", "text", "end"))],
)
def test_an_id_that_would_be_read_as_another_place_is_left_out(after, sent):
    assert ResumePoint(after, sent).as_id() == ""


def test_our_own_words_pass_a_restart_on():
    answer = restarted([TEXT])

    assert [event.data for event in Relay("request-1")(answer)] == [event.data for event in answer]


def test_a_conversations_reader_is_told_of_a_restart_where_it_was():
    text_sent = list(conversation.encode(Relay("request-1")(restarted([TEXT])), restarted=False))

    assert text_sent[0].event == "token"
    assert text_sent[1] == Event("restart", "{}", "2-0")
    assert [event.event for event in text_sent[2:]] == ["token", "done"]


# What engines may send


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "tool", "name", "text"]), inner),
    max_leaves=4,
)
KINDS = st.sampled_from(["tool_use", "tool_result", "progress", "status", "thinking", "keepalive", "data-x", ""])
FIELDS = st.sampled_from(["tool", "name", "id", "tool_use_id", "input", "result", "content", "text", "message", "delta"])


@every_translator
@given(st.lists(st.tuples(KINDS, st.dictionaries(FIELDS, JSON, max_size=3)), max_size=6))
def test_shapes_that_nobody_knows_break_nothing(name, contents):
    odd = [fields | {"type": kind} for kind, fields in contents]

    events = said(name, numbered([*odd, ANSWER[-1]]))

    assert read(name, events).end == "complete"
    for event in events:
        encode(event)


@pytest.mark.parametrize("name", ["ai-sdk", "ag-ui"])
@pytest.mark.parametrize("data", ["1e999", "[" * 900 + "]" * 900], ids=["infinite", "deep"])
def test_what_json_cannot_say_again_is_said_as_nothing(name, data):
    answer = [
        Event("", f'{{"type":"tool_use","tool":"t","input":{data}}}'),
        Event("", f'{{"type":"tool_result","tool":"t","result":{data}}}'),
        *numbered(ANSWER[-1:]),
    ]

    events = said(name, answer)

    assert read(name, events).end == "complete"
    assert "Infinity" not in str(events)


@pytest.mark.parametrize("name", ["ai-sdk", "ag-ui"])
def test_results_find_their_calls_by_id_or_else_by_name_and_order(name):
    answer = [
        {"type": "tool_use", "tool": "a", "input": 1},
        {"type": "tool_use", "tool": "a", "input": 2},
        {"type": "tool_use", "id": "call-3", "name": "b", "args": 3},
        {"type": "tool_result", "tool_use_id": "call-3", "content": "three"},
        {"type": "tool_result", "tool": "a", "result": "one"},
        {"type": "tool_result", "tool": "a", "result": "two"},
        {"type": "tool_result", "tool": "c", "result": "of a call that nobody saw"},
        ANSWER[-1],
    ]

    tools = read(name, said(name, numbered(answer))).tools

    nothing = {"ai-sdk": None, "ag-ui": {}}[name]
    assert tools == [("b", 3, "three"), ("a", 1, "one"), ("a", 2, "two"), ("c", nothing, "of a call that nobody saw")]


# What clients ask


ASKED = {
    "ai-sdk": {"messages": [{"role": "user", "id": "id-1", "parts": [{"type": "text", "text": "hi"}]}]},
    "ag-ui": {"threadId": "t", "runId": "id-1", "messages": [{"role": "user", "id": "x", "content": "hi"}]},
    "openai": {"model": "default", "messages": [{"role": "system", "content": "…"}, {"role": "user", "content": "hi"}]},
    "native": {"message": "hi", "client_message_id": "id-1"},
}


@every_protocol
def test_what_is_asked_is_the_last_message(name):
    parsed = json.loads(PROTOCOLS[name][0].parsed(json.dumps(ASKED[name]).encode()).body)

    assert parsed == {"message": "hi"} | ({} if name == "openai" else {"client_message_id": "id-1"})


def test_between_us_and_whoever_speaks_as_we_do_lies_nothing():
    assert NATIVE.encoder is None
    assert NATIVE.parsed(b"{}").body == b"{}"
