import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.api.adapters.base import ResumePoint, Sent
from bff.errors import InvalidRequest
from bff.http import event_ids
from bff.http.event_ids import ReadPosition, resumable
from bff.http.sse import Event
from bff.upstream.relay import Relay

CAN_COME_BACK = ["1-0", "x", "~!\"#%&'()*,/:;<=>?@[]{}|", "é", "à", "Ω…", "日本語", "👩‍💻", "x" * 256, "é" * 128, "\u200b"]
CANNOT = ["", " ", "a b", " a", "a\t", "\x01", "\x7f", "\x85", "a\xa0", "\u2028", "\u3000", "\ufffd", "x" * 257, "é" * 129]
PROGRESS = '{"type":"progress","text":"x"}'
ids = st.lists(st.sampled_from([*"abcdefgh", *(f"{letter} " for letter in "abcdefgh")]), unique=True)


@pytest.mark.parametrize("event_id", CAN_COME_BACK)
def test_an_id_that_is_passed_on_is_taken_back(event_id):
    event = next(Relay("r")([Event("message", PROGRESS, event_id)]))

    assert event == Event("", PROGRESS, event_id)
    assert event_ids.from_reader(event_id.encode().decode("latin-1"), "") == event_id
    assert event_ids.from_reader("", event_id) == event_id


@pytest.mark.parametrize("event_id", CANNOT)
def test_an_id_that_could_not_come_back_is_not_passed_on(event_id):
    event = next(Relay("r")([Event("message", PROGRESS, event_id)]))

    assert event == Event("", PROGRESS, "")


@pytest.mark.parametrize("event_id", [event_id for event_id in CANNOT if event_id])
def test_an_id_that_we_cannot_have_sent_is_refused(event_id):
    for header, query in ((event_id.encode().decode("latin-1"), ""), ("", event_id)):
        with pytest.raises(InvalidRequest):
            event_ids.from_reader(header, query)


@pytest.mark.parametrize("header", ["\xe9", "\xc3", "a\xff", "日本", "\udcff"])
def test_a_header_that_is_no_utf_8_is_refused(header):
    with pytest.raises(InvalidRequest):
        event_ids.from_reader(header, "")


def test_the_header_is_newer_than_the_query():
    assert event_ids.from_reader("2", "1") == "2"


@given(st.text(), st.sampled_from(Sent))
def test_a_place_in_a_protocols_answer_is_read_as_it_was_sent(after, sent):
    event_id = ResumePoint(after, sent).as_id()

    assert not event_id or (resumable(event_id) and ResumePoint.of(event_id) == (after, sent))


@pytest.mark.parametrize(
    ("place", "event_id"),
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
def test_the_mark_of_a_protocol_still_fits(place, event_id):
    assert place.as_id() == event_id


@given(ids, st.lists(st.integers(0, 5), max_size=12))
def test_whatever_ids_a_broker_has_each_event_is_new_once(log, connections):
    """`connections`: how many events each brings before it is cut; the last brings all."""
    position, told = ReadPosition(), []

    for count in [*connections, len(log)]:
        position.reopened()
        start = log.index(position.after) + 1 if position.after else 0
        told += [event_id for event_id in log[start : start + count] if position.is_new(event_id)]

    assert told == log


def test_an_event_without_an_id_of_its_own_comes_with_the_one_before():
    position = ReadPosition("1")

    read = [position.is_new(event_id) for event_id in ("1", "a b", "a b")]
    position.reopened()
    again = [position.is_new(event_id) for event_id in ("", "a b", "a b")]

    assert (read, again, position.after) == ([True] * 3, [False, False, True], "1")
