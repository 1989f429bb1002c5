from contextlib import closing
from time import monotonic

import pytest

from bff.errors import AnswerTimeout, NotFound, UpstreamError, UpstreamUnavailable
from bff.held import Held, HeldAnswers
from bff.ops import hub
from bff.sse import Event
from bff.transport import EventSource, new_session, send
from tests.live import eventually, in_parallel
from tests.wire_server import CUT, HANG, LAST_CHUNK, WireServer, chunk, stream_head

ONE, TWO = (chunk(f'data: {{"type":"progress","text":"{text} "}}\n\n'.encode()) for text in ("one", "two"))


def answers(seconds: float = 5, retention: float = 60, most_bytes: int = 10_000) -> HeldAnswers:
    return HeldAnswers(answer_max_seconds=seconds, retention_seconds=retention, most_bytes=most_bytes)


def source_of(server: WireServer) -> EventSource:
    response = send(new_session(), "GET", server.url + "/", headers={}, connect=5, until=monotonic() + 5)
    return EventSource(response, 5)


def read(held: Held) -> list[str]:
    """What a reader who comes now is told, to the end."""
    with closing(hub.watch()) as watch:
        watch.due = monotonic() + 10
        said = []
        for event in held.follow(watch):
            assert monotonic() < watch.due
            if event is not None:
                said.append(event.data)
        return said


def progress(text: str) -> str:
    return f'{{"type":"progress","text":"{text} "}}'


def test_each_reader_is_told_all_of_it_whenever_it_comes():
    with WireServer([stream_head(), ONE, 0.1, TWO, LAST_CHUNK]) as broker:
        held = answers().adopt("ada", "m-1", source_of(broker))

        told = in_parallel(4, lambda _: read(held))
        later = read(held)

    assert [*told, later] == [[progress("one"), progress("two")]] * 5


def test_a_reader_that_leaves_takes_nothing_with_it():
    with WireServer([stream_head(), ONE, 0.1, TWO, LAST_CHUNK]) as broker:
        held = answers().adopt("ada", "m-1", source_of(broker))
        with closing(hub.watch()) as watch:
            reader = held.reader()
            assert next(event for event in reader.events(watch) if event is not None).data == progress("one")
            reader.close()

        assert read(held) == [progress("one"), progress("two")]


def test_what_broke_it_is_told_to_each_reader_after_what_was_said():
    with WireServer([stream_head(), ONE, 0.05, CUT]) as broker:
        held = answers().adopt("ada", "m-1", source_of(broker))

        for _ in range(2):
            told = []
            with closing(hub.watch()) as watch, pytest.raises(UpstreamUnavailable):
                for event in held.follow(watch):
                    told.append(event)
            assert [event.data for event in told if event is not None] == [progress("one")]


def test_a_stop_tells_what_had_been_said_and_the_rest_is_read_and_dropped():
    with WireServer([stream_head(), ONE, 0.2, TWO, LAST_CHUNK]) as broker:
        held = answers().adopt("ada", "m-1", source_of(broker))
        with closing(hub.watch()) as watch:
            next(event for event in held.follow(watch) if event is not None)

        held.stop()
        told = read(held)

        assert told[0] == progress("one")
        assert told[1:] == [
            '{"type":"stopped","response":{"responses":["one "],"response_language":null,"voice_audio_base64":null}}'
        ]
        assert read(held) == told


def test_a_stop_after_the_end_changes_nothing():
    held = Held("ada", "m-1")
    held.say(Event("message", progress("one")))
    held.end()

    held.stop()
    held.say(Event("message", progress("two")))

    assert read(held) == [progress("one")]


def test_the_first_end_counts():
    held = Held("ada", "m-1")
    held.stop()

    held.end(UpstreamUnavailable())

    assert len(read(held)) == 1


def test_somebody_elses_answer_is_not_found_and_an_unknown_one_is_none():
    with WireServer([stream_head(), HANG]) as broker:
        kept = answers()
        held = kept.adopt("ada", "m-1", source_of(broker))

        assert kept.find("ada", "m-1") is held
        assert kept.find("ada", "m-2") is None
        with pytest.raises(NotFound):
            kept.find("eve", "m-1")


def test_only_ones_own_answers_that_are_not_over_run():
    with WireServer([stream_head(), ONE, LAST_CHUNK], [stream_head(), HANG]) as broker:
        kept = answers()
        over = kept.adopt("ada", "over", source_of(broker))
        kept.adopt("ada", "open", source_of(broker))
        kept.adopt("bob", "bobs", source_of(broker))

        assert eventually(lambda: over.over)
        assert kept.running("ada") == ["open"]
        assert kept.running("eve") == []


def test_an_answer_that_takes_too_long_is_given_up():
    with WireServer([stream_head(), ONE, HANG]) as broker:
        held = answers(seconds=0.2).adopt("ada", "m-1", source_of(broker))
        began = monotonic()

        with pytest.raises(AnswerTimeout):
            read(held)

        assert 0.1 < monotonic() - began < 2
        assert broker.wait_for(lambda: broker.hung_up == 1)


def test_an_answer_of_which_nobody_reads_the_end_takes_no_longer():
    with WireServer([stream_head(), ONE, HANG]) as broker:
        held = answers(seconds=0.2).adopt("ada", "m-1", source_of(broker))
        held.stop()

        assert broker.wait_for(lambda: broker.hung_up == 1)


def test_an_answer_too_long_to_be_kept_is_an_error_and_read_to_its_end():
    with WireServer([stream_head(), *[ONE] * 100, 0.1, *[ONE] * 100, LAST_CHUNK]) as broker:
        held = answers(most_bytes=500).adopt("ada", "m-1", source_of(broker))

        with pytest.raises(UpstreamError):
            read(held)

        assert held.size < 1000
        assert broker.hung_up == 0


def test_answers_that_are_over_are_kept_for_a_while():
    with WireServer([stream_head(), ONE, LAST_CHUNK]) as broker:
        kept = answers(retention=60)
        old = kept.adopt("ada", "old", source_of(broker))
        assert eventually(lambda: old.over)
        assert kept.find("ada", "old") is old

        old.ended_at -= 60
        kept.adopt("ada", "new", source_of(broker))

        assert kept.find("ada", "old") is None
        assert kept.find("ada", "new") is not None


def test_the_oldest_answers_go_first_when_they_are_too_many_bytes():
    with WireServer([stream_head(), *[ONE] * 10, LAST_CHUNK]) as broker:
        kept = answers(most_bytes=1000)
        for number in range(5):
            held = kept.adopt("ada", f"m-{number}", source_of(broker))
            assert eventually(lambda held=held: held.over)

        found = [kept.find("ada", f"m-{number}") is not None for number in range(5)]

    assert found == sorted(found)
    assert found[0] is False
    assert found[-1] is True
