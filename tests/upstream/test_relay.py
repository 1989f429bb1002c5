import json
import random
from base64 import b64decode
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.errors import BY_CODE, UpstreamTimeout, UpstreamUnavailable
from bff.http.sse import Event
from bff.upstream.events import TERMINAL
from bff.upstream.relay import Relay
from tests.broker_responses import COMPLETE
from tests.frames import decoded
from tests.live import ROOT

CASES = json.loads((ROOT / "tests" / "cases" / "relay.json").read_text())["cases"]


def relayed(reply, **options) -> list[Event]:
    return [event for event in Relay("request-1", **options)(reply) if event]


def contents(reply, **options) -> list[dict]:
    return [json.loads(event.data) for event in relayed(reply, **options)]


def comparable(event: Event) -> dict:
    data = json.loads(event.data)
    if data["type"] == "error":
        data = {"type": "error", "code": data["code"]}
    return {"data": data, "id": event.id or None}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_broker_streams_are_translated(case):
    data = b64decode(case["bytes_base64"])
    dice = random.Random(case["name"])

    assert [comparable(event) for event in relayed(decoded([data]))] == case["expected"]
    assert [comparable(event) for event in relayed(decoded(data[i : i + 1] for i in range(len(data))))] == case["expected"]
    for _ in range(10):
        edges = [0, *sorted(dice.randint(0, len(data)) for _ in range(6)), len(data)]
        pieces = [data[a:b] for a, b in pairwise(edges)]
        assert [comparable(event) for event in relayed(decoded(pieces))] == case["expected"], edges


def test_pauses_are_passed_on():
    assert next(Relay("r")([None, Event("message", COMPLETE)]), 0) is None


@pytest.mark.parametrize("problem", [UpstreamUnavailable(detail="secret"), UpstreamTimeout(detail="secret")])
def test_an_upstream_failure_becomes_an_error_event_with_our_message(problem):
    def reply():
        yield Event("queued", "{}")
        raise problem

    last = contents(reply())[-1]

    assert last == {"type": "error", "error": str(problem), "code": problem.code, "request_id": "request-1"}


def test_an_internal_error_becomes_an_error_event():
    def reply():
        yield Event("queued", "{}")
        raise ZeroDivisionError("secret")

    last = contents(reply())[-1]

    assert (last["type"], last["code"]) == ("error", "internal_error")
    assert "secret" not in json.dumps(last)


def test_nothing_is_read_after_the_terminal_event():
    def reply():
        yield Event("message", COMPLETE)
        pytest.fail("the relay read on")

    assert len(relayed(reply())) == 1


@pytest.mark.parametrize("code", ["interrupted", "answer_timeout"])
def test_known_codes_are_kept_in_a_message_of_type_error(code):
    data = json.dumps({"type": "error", "error": "x", "code": code})

    assert contents([Event("message", data)])[-1]["code"] == code
    assert contents([Event("error", data.replace('"type": "error", ', ""))])[-1]["code"] == "upstream_error"


@pytest.mark.parametrize("code", ["internal_error", 5, None, ["interrupted"]])
def test_unknown_codes_become_upstream_error(code):
    assert contents([Event("message", json.dumps({"type": "error", "code": code}))])[-1]["code"] == "upstream_error"


def test_upstream_error_texts_are_shown_only_if_exposed():
    reply = [Event("error", '{"error": "invalid x-api-key"}')]

    assert "x-api-key" not in contents(reply)[-1]["error"]
    assert contents(reply, expose_errors=True)[-1]["error"] == "invalid x-api-key"


RESTARTED = [
    Event("message", '{"type":"progress","text":"a"}', "1-0"),
    Event("message", '{"type":"restart"}', "2-0"),
    Event("processing", "", "3-0"),
    Event("message", '{"type":"progress","text":"b"}', "4-0"),
    Event("message", COMPLETE, "5-0"),
]


def test_a_restart_is_passed_on():
    relay = Relay("r")
    translated = [event for event in relay(RESTARTED) if event]

    assert translated[1] == Event("", '{"type":"restart"}', "2-0")
    assert [json.loads(event.data)["type"] for event in translated] == ["progress", "restart", "status", "progress", "complete"]
    assert (relay.events, relay.dropped, relay.ended) == (5, 0, "complete")


def test_a_restart_is_an_error_if_output_is_irrevocable():
    relay = Relay("r", irrevocable=lambda: True)
    translated = [event for event in relay(RESTARTED) if event]

    assert [json.loads(event.data).get("code") for event in translated] == [None, "interrupted"]
    assert translated[-1].id == "2-0"
    assert (relay.events, relay.ended) == (2, "interrupted")


def test_first_at_does_not_change_at_a_restart():
    relay, moments = Relay("r"), []
    for event in relay(RESTARTED):
        assert event
        moments.append(relay.first_at)

    assert len(set(moments)) == 1


def test_tool_events_can_be_left_out():
    reply = [Event("message", '{"type":"tool_use","tool":"t"}'), Event("message", COMPLETE)]

    assert [c["type"] for c in contents(reply)] == ["tool_use", "complete"]
    assert [c["type"] for c in contents(reply, tool_events=False)] == ["complete"]


def test_reasoning_can_be_left_out():
    reply = [Event("message", '{"type":"reasoning","text":"hm"}', "7"), Event("message", COMPLETE)]

    assert relayed(reply)[0] == Event("", '{"type":"reasoning","text":"hm"}', "7")
    assert [c["type"] for c in contents(reply, reasoning=False)] == ["complete"]


def test_our_own_log_keeps_every_code_and_no_text():
    for code, kind in BY_CODE.items():
        reply = [Event("message", json.dumps({"type": "error", "error": "secret", "code": code}))]
        (error,) = contents(reply, own=True)
        assert (error["code"], error["error"]) == (code, str(kind()))


def test_a_position_is_kept_if_it_is_an_integer():
    reply = [Event("queued", '{"position": 3}'), Event("queued", '{"position": true}'), Event("queued", '{"position": "3"}')]

    assert [c.get("position", None) for c in contents(reply)[:3]] == [3, None, None]


def test_keepalives_of_the_engine_get_no_id():
    (keepalive, *_) = relayed([Event("message", '{"type":"keepalive"}', "7")])

    assert keepalive == Event("", '{"type":"keepalive"}', "")


@pytest.mark.parametrize(
    "data", ["NaN", '{"type":NaN}', "[" * 100_000, '{"type":"progress","text":"\x01"}', "[1]", '"x"', "{}"]
)
def test_events_that_no_client_could_read_are_dropped_and_counted(data):
    relay = Relay("r")

    events = [event for event in relay([Event("message", data), Event("message", COMPLETE)]) if event]

    assert len(events) == 1
    assert relay.dropped == 1


@pytest.mark.parametrize("kind", ["complete", "stopped"])
@pytest.mark.parametrize("response", [None, {}, {"responses": "x"}, {"responses": [1]}, {"responses": [None]}, []])
def test_a_terminal_event_without_responses_is_an_error(kind, response):
    (only,) = contents([Event("message", json.dumps({"type": kind, "response": response}))])

    assert (only["type"], only["code"]) == ("error", "upstream_error")


def test_a_stopped_event_is_passed_on_with_its_text():
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
def test_there_is_exactly_one_terminal_event_and_it_is_last(events, ending):
    def reply():
        yield from events
        if ending:
            raise ending

    kinds = [content["type"] for content in contents(reply())]

    assert kinds[-1] in TERMINAL
    assert not TERMINAL & set(kinds[:-1])
