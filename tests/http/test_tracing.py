import re

import pytest

from bff.http import tracing

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = f"00-{TRACE}-{SPAN}-00"


@pytest.fixture(autouse=True)
def no_request():
    tracing.current.set(None)
    yield
    tracing.current.set(None)


def begun(traceparent: str) -> tracing.Trace:
    return tracing.begin({"traceparent": traceparent})


@pytest.mark.parametrize("traceparent", [GIVEN, f"01-{TRACE}-{SPAN}-00", f"cc-{TRACE}-{SPAN}-00-what.comes.later"])
def test_a_trace_that_was_begun_elsewhere_goes_on_here(traceparent):
    assert begun(traceparent)[:2] == (TRACE, "00")


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}",
        f" {GIVEN}",
        f"{GIVEN}\n",
    ],
)
def test_a_trace_that_makes_no_sense_is_not_gone_on_with(traceparent):
    first, second = begun(traceparent).trace_id, begun(traceparent).trace_id

    assert re.fullmatch("[0-9a-f]{32}", first)
    assert len({TRACE, first, second}) == 3


def test_each_call_to_a_service_is_a_span_of_its_own_in_the_one_trace():
    tracing.begin({"traceparent": GIVEN, "X-Request-ID": "r-1"})

    calls = [tracing.headers() for _ in range(3)]

    spans = [re.fullmatch(f"00-{TRACE}-([0-9a-f]{{16}})-00", call["traceparent"])[1] for call in calls]
    assert len({SPAN, *spans}) == 4
    assert {call["X-Request-ID"] for call in calls} == {"r-1"}


@pytest.mark.parametrize("said", ["", "two words", "x" * 129, "line\nfeed"])
def test_a_request_id_that_could_not_be_searched_for_is_replaced(said):
    assert re.fullmatch("[0-9a-f]{32}", tracing.begin({"X-Request-ID": said}).request_id)


def test_what_is_kept_with_a_message_is_gone_on_with_by_whoever_answers_it():
    begun = tracing.begin({"traceparent": GIVEN, "X-Request-ID": "r-1"})
    kept = tracing.kept()
    tracing.current.set(None)

    tracing.go_on(kept)

    assert tracing.current.get() == begun
    assert tracing.fields() == {"request_id": "r-1", "trace_id": TRACE}


@pytest.mark.parametrize("kept", ["", "of another version"])
def test_a_message_without_a_trace_is_answered_all_the_same(kept):
    begun(GIVEN)

    tracing.go_on(kept)

    assert (tracing.headers(), tracing.fields(), tracing.kept()) == ({}, {}, "")
