import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.api.adapters.base import ResumePoint, Sent
from bff.errors import InvalidRequest
from bff.http import event_ids
from bff.http.event_ids import ReadPosition, resumable
from bff.http.sse import Event
from bff.upstream.relay import Relay

RESUMABLE = ["1-0", "x", "~!\"#%&'()*,/:;<=>?@[]{}|", "é", "à", "Ω…", "日本語", "👩‍💻", "x" * 256, "é" * 128, "\u200b"]
UNSAFE = [
    "",
    " ",
    "a b",
    " a",
    "a\t",
    "\x01",
    "\x7f",
    "\x85",
    "a\xa0",
    "\u2028",
    "\u3000",
    "\ufffd",
    "x" * 257,
    "é" * 129,
]
PROGRESS = '{"type":"progress","text":"x"}'
ids = st.lists(st.sampled_from([*"abcdefgh", *(f"{letter} " for letter in "abcdefgh")]), unique=True)


@pytest.mark.parametrize("event_id", RESUMABLE)
def test_a_resumable_id_is_sent_and_accepted_back(event_id):
    event = next(Relay("r")([Event("message", PROGRESS, event_id)]))

    assert event == Event("", PROGRESS, event_id)
    assert event_ids.from_reader(event_id.encode().decode("latin-1"), "") == event_id
    assert event_ids.from_reader("", event_id) == event_id


@pytest.mark.parametrize("event_id", UNSAFE)
def test_an_id_that_is_not_resumable_is_not_sent(event_id):
    event = next(Relay("r")([Event("message", PROGRESS, event_id)]))

    assert event == Event("", PROGRESS, "")


@pytest.mark.parametrize("event_id", [event_id for event_id in UNSAFE if event_id])
def test_an_id_that_was_never_sent_is_rejected(event_id):
    for header, query in ((event_id.encode().decode("latin-1"), ""), ("", event_id)):
        with pytest.raises(InvalidRequest):
            event_ids.from_reader(header, query)


@pytest.mark.parametrize("header", ["\xe9", "\xc3", "a\xff", "日本", "\udcff"])
def test_a_header_that_is_not_utf_8_is_rejected(header):
    with pytest.raises(InvalidRequest):
        event_ids.from_reader(header, "")


def test_the_header_overrides_the_query():
    assert event_ids.from_reader("2", "1") == "2"


@given(st.text(), st.sampled_from(Sent))
def test_a_resume_point_survives_the_round_trip(after, sent):
    event_id = ResumePoint(after, sent).as_id()

    assert not event_id or (resumable(event_id) and ResumePoint.of(event_id) == (after, sent))


@pytest.mark.parametrize(
    ("point", "event_id"),
    [
        (ResumePoint("", Sent.TEXT), ""),
        (ResumePoint("1-0", Sent.NOTHING), "1-0"),
        (ResumePoint("1-0", Sent.TEXT), "1-0;text"),
        (ResumePoint("x" * 251, Sent.TEXT), "x" * 251 + ";text"),
        (ResumePoint("x" * 252, Sent.TEXT), ""),
        (ResumePoint("x" * 256, Sent.NOTHING), "x" * 256),
        (ResumePoint("1-0;text", Sent.NOTHING), ""),
        (ResumePoint("1-0;text", Sent.TEXT), "1-0;text;text"),
    ],
)
def test_a_resume_point_that_is_too_long_has_no_id(point, event_id):
    assert point.as_id() == event_id


@given(ids, st.lists(st.integers(0, 5), max_size=12))
def test_each_event_is_new_once_across_reconnects(log, connections):
    """`connections`: the number of events that each delivers before it is lost; a last one delivers the rest."""
    position, read = ReadPosition(), []

    for count in [*connections, len(log)]:
        position.reopened()
        start = log.index(position.after) + 1 if position.after else 0
        read += [event_id for event_id in log[start : start + count] if position.is_new(event_id)]

    assert read == log


def test_an_event_without_an_id_belongs_to_the_one_before():
    position = ReadPosition("1")

    read = [position.is_new(event_id) for event_id in ("1", "a b", "a b")]
    position.reopened()
    read_again = [position.is_new(event_id) for event_id in ("", "a b", "a b")]

    assert (read, read_again, position.after) == ([True] * 3, [False, False, True], "1")
