import json
import random
import time
from base64 import b64decode
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.errors import UpstreamError
from bff.http.sse import Decoder, Event, encode
from tests.frames import decoded
from tests.live import ROOT

CASES = json.loads((ROOT / "tests" / "cases" / "sse.json").read_text())["cases"]
every_case = pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])


def cut(data: bytes, positions: list[int]) -> list[bytes]:
    edges = [0, *sorted(positions), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def chunks_of(case) -> list[bytes]:
    return [b64decode(chunk) for chunk in case["chunks_base64"]]


def expected(case) -> list[Event]:
    return [Event(e["event"], e["data"], e["id"]) for e in case["expected"]]


@every_case
def test_streams_are_decoded_according_to_the_standard(case):
    decoder = Decoder()

    events = [event for chunk in chunks_of(case) for event in decoder.feed(chunk)]

    assert events == expected(case)
    assert decoder.last_event_id == case["final_last_event_id"]


@every_case
def test_streams_decode_the_same_byte_by_byte(case):
    data = b"".join(chunks_of(case))

    assert decoded([data[i : i + 1] for i in range(len(data))]) == expected(case)


@every_case
def test_streams_decode_the_same_wherever_they_are_cut(case):
    data = b"".join(chunks_of(case))
    dice = random.Random(case["name"])

    for _ in range(20):
        positions = [dice.randint(0, len(data)) for _ in range(dice.randint(1, 8))]
        assert decoded(cut(data, positions)) == expected(case), positions


@given(st.data())
def test_concatenated_streams_decode_the_same_wherever_they_are_cut(data):
    wire = b"\n\n".join(b"".join(chunks_of(data.draw(st.sampled_from(CASES)))) for _ in range(2))
    positions = data.draw(st.lists(st.integers(0, len(wire)), max_size=12))

    assert decoded(cut(wire, positions)) == decoded([wire])


@given(st.binary(max_size=300).map(lambda noise: noise.replace(b"x", b"\ndata: ").replace(b"y", b"\r")), st.data())
def test_random_bytes_decode_the_same_wherever_they_are_cut(noise, data):
    positions = data.draw(st.lists(st.integers(0, len(noise)), max_size=6))

    assert decoded(cut(noise, positions)) == decoded([noise])


def test_decoding_a_large_event_in_small_chunks_takes_linear_time():
    def seconds(size: int) -> float:
        data = b"data: " + b"x" * size + b"\n\n"
        pieces = [data[i : i + 128] for i in range(0, len(data), 128)]
        start = time.process_time()
        (event,) = decoded(pieces)
        assert len(event.data) == size
        return time.process_time() - start

    small, large = seconds(2**21), seconds(2**24 - 8)

    assert large < small * 8 * 4, "eight times the bytes should take about eight times as long"


@pytest.mark.parametrize(
    "chunks",
    [
        [b"data: " + b"x" * 2000 + b"\n\n"],
        [b"data: ", *[b"x" * 100] * 20],
        [b": ", *[b"x" * 100] * 20],
        [b"data: x\n" * 200],
    ],
    ids=["complete", "endless", "an endless comment", "without a blank line"],
)
def test_an_event_over_the_limit_is_an_error(chunks):
    with pytest.raises(UpstreamError):
        decoded(chunks, max_event_bytes=1024)


@pytest.mark.parametrize("block", [b"data: x\n" * 2_001, b"data: " + b"x" * 2**17 + b"\ndata: " + b"x" * 2**17])
def test_too_many_data_lines_are_an_error(block):
    with pytest.raises(UpstreamError):
        decoded([block + b"\n\n"])


def test_many_events_in_one_chunk_are_not_over_the_limit():
    assert len(decoded([b"data: x\n\n" * 100_000])) == 100_000


@pytest.mark.parametrize(
    ("event", "frame"),
    [
        (Event("", "{}"), b"data: {}\n\n"),
        (Event("", "{}", "7"), b"data: {}\nid: 7\n\n"),
        (Event("token", "a\r\nb\rc\nd"), b"event: token\ndata: a\ndata: b\ndata: c\ndata: d\n\n"),
        (Event("", "\u2028"), b"data: \xe2\x80\xa8\n\n"),
        (Event("", ""), b"data: \n\n"),
    ],
)
def test_an_event_is_encoded_as_a_frame(event, frame):
    assert encode(event) == frame


def test_retry_is_encoded_in_the_frame():
    assert encode(Event("", "{}", "7"), retry=250) == b"data: {}\nid: 7\nretry: 250\n\n"


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0b"])
def test_line_breaks_in_a_type_or_id_are_rejected(bad):
    with pytest.raises(ValueError, match="must not hold"):
        encode(Event(bad, "x"))
    with pytest.raises(ValueError, match="must not hold"):
        encode(Event("", "x", bad))


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=20)


@given(st.lists(st.tuples(text.filter(bool), st.text(st.characters(exclude_categories=["Cs"])), text.filter(bool))), st.data())
def test_encoded_events_are_decoded_unchanged(events, data):
    wire = b"".join(encode(Event(*event)) for event in events)
    positions = data.draw(st.lists(st.integers(0, len(wire)), max_size=6))

    assert decoded(cut(wire, positions)) == [
        Event(name, content.replace("\r\n", "\n").replace("\r", "\n"), i) for name, content, i in events
    ]
