import re

import pytest

from bff.http import tracing

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-00"


@pytest.fixture(autouse=True)
def no_request():
    tracing.current.set(None)
    yield
    tracing.current.set(None)


def start(traceparent: str) -> tracing.Trace:
    return tracing.begin({"traceparent": traceparent})


@pytest.mark.parametrize("traceparent", [TRACEPARENT, f"01-{TRACE}-{SPAN}-00", f"cc-{TRACE}-{SPAN}-00-what.comes.later"])
def test_a_valid_traceparent_is_continued(traceparent):
    assert start(traceparent)[:2] == (TRACE, "00")


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
        f" {TRACEPARENT}",
        f"{TRACEPARENT}\n",
    ],
)
def test_an_invalid_traceparent_starts_a_new_trace(traceparent):
    first, second = start(traceparent).trace_id, start(traceparent).trace_id

    assert re.fullmatch("[0-9a-f]{32}", first)
    assert len({TRACE, first, second}) == 3


def test_each_upstream_request_is_a_span_of_the_trace():
    tracing.begin({"traceparent": TRACEPARENT, "X-Request-ID": "r-1"})

    requests = [tracing.headers() for _ in range(3)]

    spans = [re.fullmatch(f"00-{TRACE}-([0-9a-f]{{16}})-00", headers["traceparent"])[1] for headers in requests]
    assert len({SPAN, *spans}) == 4
    assert {headers["X-Request-ID"] for headers in requests} == {"r-1"}


@pytest.mark.parametrize("request_id", ["", "two words", "x" * 129, "line\nfeed"])
def test_an_invalid_request_id_is_replaced(request_id):
    assert re.fullmatch("[0-9a-f]{32}", tracing.begin({"X-Request-ID": request_id}).request_id)


def test_a_stored_trace_is_continued():
    trace = tracing.begin({"traceparent": TRACEPARENT, "X-Request-ID": "r-1"})
    stored = tracing.inject()
    tracing.current.set(None)

    tracing.extract(stored)

    assert tracing.current.get() == trace
    assert tracing.fields() == {"request_id": "r-1", "trace_id": TRACE}


@pytest.mark.parametrize("stored", ["", "of another version"])
def test_an_invalid_stored_trace_is_ignored(stored):
    start(TRACEPARENT)

    tracing.extract(stored)

    assert (tracing.headers(), tracing.fields(), tracing.inject()) == ({}, {}, "")
