import json
import random
from base64 import b64decode
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.errors import UpstreamTimeout, UpstreamUnavailable
from bff.http.sse import Event
from bff.upstream.events import TERMINAL
from bff.upstream.relay import Relay
from tests.broker_says import COMPLETE
from tests.frames import decoded
from tests.live import ROOT

CASES = json.loads((ROOT / "tests" / "cases" / "relay.json").read_text())["cases"]


def relayed(answer, **options) -> list[Event]:
    return [event for event in Relay("request-1", **options)(answer) if event]


def contents(answer, **options) -> list[dict]:
    return [json.loads(event.data) for event in relayed(answer, **options)]


def comparable(event: Event) -> dict:
    data = json.loads(event.data)
    if data["type"] == "error":
        data = {"type": "error", "code": data["code"]}
    return {"data": data, "id": event.id or None}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_what_a_broker_said_becomes_what_the_browser_must_get(case):
    said = b64decode(case["bytes_base64"])
    dice = random.Random(case["name"])

    assert [comparable(event) for event in relayed(decoded([said]))] == case["expected"]
    assert [comparable(event) for event in relayed(decoded(said[i : i + 1] for i in range(len(said))))] == case["expected"]
    for _ in range(10):
        edges = [0, *sorted(dice.randint(0, len(said)) for _ in range(6)), len(said)]
        pieces = [said[a:b] for a, b in pairwise(edges)]
        assert [comparable(event) for event in relayed(decoded(pieces))] == case["expected"], edges


def test_a_pause_is_passed_on():
    assert next(Relay("r")([None, Event("message", COMPLETE)]), 0) is None


@pytest.mark.parametrize("problem", [UpstreamUnavailable(detail="secret"), UpstreamTimeout(detail="secret")])
def test_a_broken_broker_becomes_an_error_event_in_our_words(problem):
    def answer():
        yield Event("queued", "{}")
        raise problem

    last = contents(answer())[-1]

    assert last == {"type": "error", "error": str(problem), "code": problem.code, "request_id": "request-1"}


def test_a_fault_of_ours_becomes_an_error_event_too():
    def answer():
        yield Event("queued", "{}")
        raise ZeroDivisionError("secret")

    last = contents(answer())[-1]

    assert (last["type"], last["code"]) == ("error", "internal_error")
    assert "secret" not in json.dumps(last)


def test_nothing_is_read_after_the_terminal_event():
    def answer():
        yield Event("message", COMPLETE)
        pytest.fail("the relay read on")

    assert len(relayed(answer())) == 1


@pytest.mark.parametrize("code", ["interrupted", "answer_timeout"])
def test_our_own_brokers_codes_are_kept_in_a_message_of_type_error(code):
    data = json.dumps({"type": "error", "error": "x", "code": code})

    assert contents([Event("message", data)])[-1]["code"] == code
    assert contents([Event("error", data.replace('"type": "error", ', ""))])[-1]["code"] == "upstream_error"


@pytest.mark.parametrize("code", ["internal_error", 5, None, ["interrupted"]])
def test_any_other_code_is_ours(code):
    assert contents([Event("message", json.dumps({"type": "error", "code": code}))])[-1]["code"] == "upstream_error"


def test_an_upstreams_own_words_are_shown_in_development_only():
    answer = [Event("error", '{"error": "invalid x-api-key"}')]

    assert "x-api-key" not in contents(answer)[-1]["error"]
    assert contents(answer, expose_errors=True)[-1]["error"] == "invalid x-api-key"


RESTARTED = [
    Event("message", '{"type":"progress","text":"a"}', "1-0"),
    Event("message", '{"type":"restart"}', "2-0"),
    Event("processing", "", "3-0"),
    Event("message", '{"type":"progress","text":"b"}', "4-0"),
    Event("message", COMPLETE, "5-0"),
]


def test_a_restart_is_passed_on_and_the_answer_goes_on():
    relay = Relay("r")
    told = [event for event in relay(RESTARTED) if event]

    assert told[1] == Event("", '{"type":"restart"}', "2-0")
    assert [json.loads(event.data)["type"] for event in told] == ["progress", "restart", "status", "progress", "complete"]
    assert (relay.events, relay.dropped, relay.ended) == (5, 0, "complete")


def test_a_restart_is_the_end_where_output_cannot_be_taken_back():
    relay = Relay("r", irrevocable=lambda: True)
    told = [event for event in relay(RESTARTED) if event]

    assert [json.loads(event.data).get("code") for event in told] == [None, "interrupted"]
    assert told[-1].id == "2-0"
    assert (relay.events, relay.ended) == (2, "interrupted")


def test_the_first_event_is_the_first_of_all_not_of_the_new_start():
    relay, moments = Relay("r"), []
    for event in relay(RESTARTED):
        assert event
        moments.append(relay.first_at)

    assert len(set(moments)) == 1


def test_tool_events_can_be_left_out():
    answer = [Event("message", '{"type":"tool_use","tool":"t"}'), Event("message", COMPLETE)]

    assert [c["type"] for c in contents(answer)] == ["tool_use", "complete"]
    assert [c["type"] for c in contents(answer, tool_events=False)] == ["complete"]


def test_a_position_is_kept_when_it_is_a_whole_number():
    answer = [Event("queued", '{"position": 3}'), Event("queued", '{"position": true}'), Event("queued", '{"position": "3"}')]

    assert [c.get("position", None) for c in contents(answer)[:3]] == [3, None, None]


def test_the_engines_keepalive_never_carries_an_id():
    (keepalive, *_) = relayed([Event("message", '{"type":"keepalive"}', "7")])

    assert keepalive == Event("", '{"type":"keepalive"}', "")


@pytest.mark.parametrize(
    "data", ["NaN", '{"type":NaN}', "[" * 100_000, '{"type":"progress","text":"\x01"}', "[1]", '"x"', "{}"]
)
def test_what_no_browser_could_read_is_dropped_and_counted(data):
    relay = Relay("r")

    events = [event for event in relay([Event("message", data), Event("message", COMPLETE)]) if event]

    assert len(events) == 1
    assert relay.dropped == 1


@pytest.mark.parametrize("kind", ["complete", "stopped"])
@pytest.mark.parametrize("response", [None, {}, {"responses": "x"}, {"responses": [1]}, {"responses": [None]}, []])
def test_an_end_without_responses_is_an_error(kind, response):
    (only,) = contents([Event("message", json.dumps({"type": kind, "response": response}))])

    assert (only["type"], only["code"]) == ("error", "upstream_error")


def test_a_stopped_answer_ends_with_what_had_been_said():
    relay = Relay("r")

    (only,) = [e for e in relay([Event("message", '{"type":"stopped","response":{"responses":["so far"]}}')]) if e]

    assert json.loads(only.data) == {"type": "stopped", "response": {"responses": ["so far"]}}
    assert relay.ended == "stopped"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "response", "error", "code"]), inner),
    max_leaves=8,
)
broker_events = st.builds(
    Event,
    st.sampled_from(["message", "queued", "processing", "error", "done", "else"]),
    json_values.map(json.dumps) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=20),
    st.sampled_from(["", "7"]),
)


@given(st.lists(st.none() | broker_events, max_size=8), st.sampled_from([None, UpstreamUnavailable, ValueError]))
def test_there_is_exactly_one_terminal_event_and_it_is_last(said, ending):
    def answer():
        yield from said
        if ending:
            raise ending

    kinds = [content["type"] for content in contents(answer())]

    assert kinds[-1] in TERMINAL
    assert not TERMINAL & set(kinds[:-1])
