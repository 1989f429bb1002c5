"""What model servers really send, read from bytes: the cases, further forms of the same kinds, and mutations of them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.errors import ContextTooLong
from tests.engine.agents.providers import CASES, Outcome, body_of, cuts, expected, name, read

STREAMS = [case for case in CASES if case["status"] == "200 OK" and "Content-Encoding" not in case["headers"]]


@pytest.mark.parametrize("case", STREAMS, ids=name)
def test_a_case_has_the_same_outcome_wherever_it_is_cut(case):
    data = b"".join(body_of(case))
    is_cut = case["end"] != "clean"
    outcome = read(body_of(case), is_cut=is_cut).outcome

    assert outcome[:2] == expected(case)
    assert outcome.code == case["expect"].get("code", outcome.code)
    for chunks in cuts(data, case["name"]):
        assert read(chunks, is_cut=is_cut).outcome == outcome


def event(content: Any) -> bytes:
    return b"data: " + (content if isinstance(content, bytes) else json.dumps(content).encode()) + b"\n\n"


def piece(delta: Any, reason: Any = None, **fields: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": reason} | fields]})


def choice(**fields: Any) -> bytes:
    return event({"choices": [fields]})


HI, STOP, DONE = piece({"content": "Hi."}), piece({}, "stop"), event(b"[DONE]")

COMPLETE = {
    "upper-case STOP": [HI, piece({}, "STOP")],
    "eos_token": [HI, piece({}, "eos_token")],
    "end_turn": [HI, piece({}, "end_turn")],
    "finish_reason beside the last text": [piece({"content": "Hi."}, "stop")],
    "index null": [event({"choices": [{"index": None, "delta": {"content": "Hi."}, "finish_reason": "stop"}]})],
    "no index": [choice(delta={"content": "Hi."}, finish_reason="stop")],
    "delta null": [HI, piece(None), piece(None, "stop")],
    "a usage chunk after the finish": [HI, STOP, event({"choices": [], "usage": {"prompt_tokens": 1}}), DONE],
    "choices null": [HI, event({"choices": None}), STOP],
    "a refusal": [piece({"refusal": "Hi."}), STOP],
    "a part that is a string": [piece({"content": ["Hi", "."]}), STOP],
    "one part that is no list": [piece({"content": {"type": "text", "text": "Hi."}}), STOP],
    "a citation among the parts": [piece({"content": [{"type": "reference", "reference_ids": [1]}]}), HI, STOP],
    "text beside delta": [choice(delta={"content": "Hi."}, text="Hi."), STOP],
    "message beside delta, the whole text so far": [
        choice(delta={"content": "H"}, message={"content": "H"}),
        choice(delta={"content": "i."}, message={"content": "Hi."}),
        choice(delta={}, message={"content": "Hi."}, finish_reason="stop"),
    ],
    "messages instead of deltas": [choice(message={"content": "H"}), choice(message={"content": "i."}, finish_reason="stop")],
    "the whole message at the end": [piece({"role": "assistant"}), choice(delta={}, message={"content": "Hi."}), STOP],
    "a finish_reason in each chunk": [piece({"content": "H"}, "stop"), piece({"content": "i."}, "stop"), DONE],
    "text after the finish_reason, then [DONE]": [piece({"content": "H"}, "stop"), piece({"content": "i."}), DONE],
    "blank data": [b"data: \n\n", HI, b"data:\n\n", STOP],
    "ping events": [b"event: ping\ndata: 3\n\n", b'event: ping\ndata: {"type": "ping"}\n\n', HI, STOP],
    "an object without choices": [event({"type": "ping"}), event({"id": "x", "model": "m"}), HI, STOP],
    "error null": [event({"error": None, "choices": []}), HI, piece({}, "stop", error=None)],
    "error_code 0": [event({"error_code": 0, "base_resp": {"status_code": 0, "status_msg": "ok"}}), HI, STOP],
    "an error of Azure's filter": [HI, piece({}, "stop", content_filter_results={"error": {"code": "content_filter_error"}})],
    "tool_calls []": [piece({"content": "Hi.", "tool_calls": []}), piece({"tool_calls": None}, "stop")],
    "a second choice": [HI, event({"choices": [{"index": 1, "delta": {"content": "No."}}]}), STOP],
    "a line feed in a string": [event(b'{"choices": [{"delta": {"content": "Hi."}, "x": "a\tb"}]}'), STOP],
    "NaN": [event(b'{"choices": [{"delta": {"content": "Hi."}, "logprobs": [NaN, Infinity]}]}'), STOP],
    "other fields of SSE": [b"retry: 3\n\nid: 7\nevent: chunk\n" + HI, STOP],
    "CR": [HI.replace(b"\n", b"\r"), STOP.replace(b"\n", b"\r")],
    "no blank line at the end": [HI, STOP[:-2]],
    "half an event after the finish_reason": [HI, STOP, b'data: {"choices": [], "usa'],
    "bare JSON in a stream": [HI, STOP.removeprefix(b"data: "), DONE],
    "JSON objects, one a line": [HI[6:], STOP[6:]],
    "indented JSON": [json.dumps({"choices": [{"message": {"content": "Hi."}, "finish_reason": "stop"}]}, indent=1).encode()],
    "JSON after blank lines": [b"\n\n  ", choice(message={"content": "Hi."}, finish_reason="stop")[6:]],
    "nothing but [DONE]": [HI, DONE],
    "after [DONE]": [HI, DONE, event(b"garbage"), event({"error": "late"})],
}


@pytest.mark.parametrize("chunks", COMPLETE.values(), ids=COMPLETE)
def test_a_whole_reply_is_complete(chunks):
    assert read(chunks).outcome == Outcome("Hi.", "complete")
    for other in cuts(b"".join(chunks), "complete", 3):
        assert read(other).outcome == Outcome("Hi.", "complete")


@pytest.mark.parametrize("reason", ["length", "MAX_TOKENS", "model_length", "max_output_tokens"])
def test_a_reply_cut_by_the_models_limit_is_truncated(reason):
    assert read([HI, piece({}, reason), DONE]).outcome == Outcome("Hi.", "length")
    assert read([HI, piece({}, reason), piece({}, "stop"), DONE]).outcome == Outcome("Hi.", "length")


UNKNOWN_REASONS = ("abort", "cancelled", "SAFETY", "recitation", "other", "insufficient_system_resource", "content_filter")
UNKNOWN_REASONS += ("sensitive", "network_error", "load", "MALFORMED_FUNCTION_CALL", "tool_calls", "function_call", "null")
ERROR = {"message": "Somebody's words.", "type": "server_error", "code": 500}
FAILED = {
    **{f"finish_reason {reason}": [HI, piece({}, reason), DONE] for reason in UNKNOWN_REASONS},
    "a finish_reason that is no text": [HI, piece({}, 3), DONE],
    "an error": [HI, event({"error": ERROR}), DONE],
    "an error that is a text": [HI, event({"error": "Somebody's words."}), DONE],
    "an error beside choices": [HI, event({"choices": [], "error": ERROR}), DONE],
    "an error in a choice": [HI, piece({}, None, error=ERROR), DONE],
    "an error after the finish_reason": [HI, STOP, event({"error": ERROR}), DONE],
    "object error": [HI, event({"object": "error"} | ERROR), DONE],
    "type error": [HI, event({"type": "error", "text": "Somebody's words."}), DONE],
    "error_code": [HI, event({"error_code": 18, "error_msg": "Somebody's words."}), DONE],
    "detail": [HI, event({"detail": "Somebody's words."}), DONE],
    "a flat error": [HI, event({"code": "InvalidParameter", "message": "Somebody's words."}), DONE],
    "base_resp": [HI, event({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}), DONE],
    "an error event without JSON": [HI, b"event: error\ndata: Somebody's words.\n\n", DONE],
    "an error event without data": [HI, b"event: error\ndata\n\n", DONE],
    "the field error": [HI, b'error: {"code": 500, "message": "Somebody\'s words."}\n\n', DONE],
    "a bare error": [HI, b'{"error": {"message": "Somebody\'s words."}}\n\n', DONE],
    "a list": [HI, event([1]), DONE],
    "null": [HI, event(b"null"), DONE],
    "a text": [HI, event(b"Somebody's words."), DONE],
    "[DONE] as JSON": [HI, event(b'"[DONE]"')],
    "deep nesting": [HI, event(b'{"a":' * 5_000), DONE],
    "choices in another form": [HI, event({"choices": {"0": {}}}), DONE],
    "a choice in another form": [HI, event({"choices": ["Hi."]}), DONE],
    "a delta in another form": [HI, piece(["Hi."]), DONE],
    "content in another form": [HI, piece({"content": 3}), DONE],
    "an event without its end": [HI, b'data: {"choices": [{"delta": {"content": "'],
}


@pytest.mark.parametrize("chunks", FAILED.values(), ids=FAILED)
def test_anything_unknown_is_a_failure(chunks):
    reading = read(chunks)

    assert reading.outcome == Outcome("Hi.", "error", "upstream_error")
    assert "Somebody" not in str(reading.problem) + reading.problem.detail
    for other in cuts(b"".join(chunks), "failed", 3):
        assert read(other).outcome == reading.outcome


INCOMPLETE = {
    "nothing": [],
    "white space": [b"\n\n"],
    "comments": [b": OPENROUTER PROCESSING\n\n", b":\n\n"],
    "only [DONE]": [DONE],
    "no text": [piece({"role": "assistant", "content": ""}), STOP, DONE],
    "only reasoning": [piece({"reasoning": "hm"}), STOP, DONE],
    "no finish_reason": [HI],
    "half of [DONE]": [HI, b"data: [DO"],
    "a blank finish_reason": [HI, piece({}, "")],
    "text after the finish_reason": [piece({"content": "H"}, "stop"), piece({"content": "i."})],
    "only a second choice": [event({"choices": [{"index": 1, "delta": {"content": "Hi."}, "finish_reason": "stop"}]})],
}


@pytest.mark.parametrize("chunks", INCOMPLETE.values(), ids=INCOMPLETE)
def test_half_a_reply_or_none_is_incomplete(chunks):
    outcome = read(chunks).outcome

    assert outcome.end == "error"
    assert outcome.code == ("upstream_error" if chunks == INCOMPLETE["half of [DONE]"] else "answer_incomplete")


@pytest.mark.parametrize("data", [b"<html>Not here</html>", b"Internal error", b'["a"]', b'{"choices": [', b'"text"'])
def test_a_body_that_is_neither_a_stream_nor_json_is_an_upstream_error(data):
    assert read([data]).outcome == Outcome("", "error", "upstream_error")


@pytest.mark.parametrize("start", [b"data: ", b'{"a": "', b" "], ids=["stream", "JSON", "blank"])
def test_a_response_has_a_maximum_size(start):
    chunks = [start, *[b" " * 2**16] * 17]

    assert read(chunks).outcome == Outcome("", "error", "upstream_error")


def test_a_cut_is_an_end_only_after_the_finish_reason():
    assert read([HI, STOP], is_cut=True).outcome == Outcome("Hi.", "complete")
    assert read([HI, STOP, HI], is_cut=True).outcome == Outcome("Hi.Hi.", "error", "upstream_unavailable")
    assert read([HI], is_cut=True).outcome == Outcome("Hi.", "error", "upstream_unavailable")


def test_tool_calls_end_a_reply_only_if_tools_were_offered():
    chunks = [HI, piece({"tool_calls": [{"index": 0, "function": {"name": "f"}}]}), piece({}, "tool_calls"), DONE]

    assert read(chunks, tools_offered=True).outcome == Outcome("Hi.", "complete")


REASONING = {
    "reasoning_content": [piece({"reasoning_content": "hm", "content": None})],
    "reasoning": [piece({"reasoning": "hm", "content": ""})],
    "both": [piece({"reasoning": "hm", "reasoning_content": "hm"})],
    "an object": [piece({"reasoning": {"content": "hm"}})],
    "reasoning_details": [piece({"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]})],
    "a summary": [piece({"reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}]})],
    "encrypted details": [piece({"reasoning": "hm", "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]})],
    "thinking parts": [piece({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]})],
    "a think block": [piece({"content": "<think>hm</think>"})],
    "a think block and white space": [piece({"content": "\n<think>h"}), piece({"content": "m</think>\n\n"})],
    "the finish_reason too early": [piece({"reasoning_content": "hm"}, "stop")],
}


@pytest.mark.parametrize("thoughts", REASONING.values(), ids=REASONING)
def test_reasoning_is_no_text(thoughts):
    reading = read([*thoughts, HI, STOP])

    assert (reading.text, reading.reasoning, reading.problem) == ("Hi.", "hm", None)


@pytest.mark.parametrize(
    ("text", "shown", "reasoning"),
    [
        ("<think>a < b</think>c</think>d", "c</think>d", "a < b"),
        ("<think></think>x", "x", ""),
        ("<thin", "<thin", ""),
        ("  <b>x</b>", "  <b>x</b>", ""),
        ("x<think>y</think>", "x<think>y</think>", ""),
        ("<think>never closed </thin", "", "never closed </thin"),
        (" " * 1100, " " * 1100, ""),
    ],
)
def test_a_leading_think_block_is_reasoning_however_it_is_cut(text, shown, reasoning):
    for size in (1, 3, len(text)):
        pieces = [piece({"content": text[at : at + size]}) for at in range(0, len(text), size)]
        reading = read([*pieces, STOP])
        assert (reading.text, reading.reasoning) == (shown, reasoning)


def test_usage_is_kept_as_the_model_reported_it():
    usage = {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}

    assert read([HI, STOP, event({"choices": [], "usage": usage | {"cost": 0.1}}), DONE]).ending.usage == usage
    assert read([HI, STOP, event({"choices": [], "usage": {"total_tokens": 3}}), DONE]).ending.usage is None


@pytest.mark.parametrize(
    "error",
    [
        {"message": "Context size has been exceeded."},
        {"code": "context_length_exceeded"},
        {"type": "exceed_context_size_error", "message": "no"},
    ],
)
def test_a_too_long_context_is_reported_inside_a_stream_too(error):
    assert isinstance(read([event({"error": error})]).problem, ContextTooLong)
    assert isinstance(read([b"event: error\n" + event({"error": error})]).problem, ContextTooLong)


WHOLE = [piece({"role": "assistant", "content": ""}), *[piece({"content": f"word{n} "}) for n in range(6)], STOP, DONE]
TEXT = "".join(f"word{n} " for n in range(6))


@given(st.integers(0, sum(map(len, WHOLE))), st.booleans())
def test_a_part_of_a_stream_is_never_complete(end, is_cut):
    data = b"".join(WHOLE)[:end]
    outcome = read([data], is_cut=is_cut).outcome

    _, finish, rest = data.partition(b'"finish_reason": "stop"}]}')
    is_finished = finish != b"" and (not is_cut or rest.startswith(b"\n\n"))
    assert outcome[:2] == (TEXT, "complete") if is_finished else outcome.end == "error"


MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, len(WHOLE) - 1),
        st.sampled_from([b"\n", b"\xff", b"{", b"}", b'"', b":", b"\r", b"data: ", b"\n\n", b'"error":1,', b"null", b"[DONE]"]),
        st.integers(0, 200),
    ),
    min_size=1,
    max_size=3,
)


@given(MUTATIONS, st.booleans(), st.randoms(use_true_random=False))
def test_a_mutated_stream_has_one_outcome_and_loses_no_text_in_silence(mutations, is_cut, dice):
    chunks = list(WHOLE)
    for number, inserted, at in mutations:
        chunks[number] = chunks[number][:at] + inserted + chunks[number][at:]
    data = b"".join(chunks)
    reading = read([data], is_cut=is_cut)

    edges = sorted(dice.randint(0, len(data)) for _ in range(5))
    pieces = [data[a:b] for a, b in zip([0, *edges], [*edges, len(data)], strict=True)]
    assert read(pieces, is_cut=is_cut).outcome == reading.outcome
    if reading.outcome.end == "complete":
        assert len(reading.text) >= len(TEXT) - 3 * 6, reading.text


@given(st.lists(st.sampled_from(sorted(map(b"".join, [*COMPLETE.values(), *FAILED.values()]), key=len)[:-1]), max_size=4))
def test_any_sequence_of_events_ends_in_an_outcome(bodies):
    assert read(bodies).outcome.end in {"complete", "error"}


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_end_in_an_error(data, is_cut):
    assert read([data], is_cut=is_cut).outcome.end == "error"
