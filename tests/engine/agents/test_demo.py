import socket
from contextlib import closing
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.auth.identity import Identity
from bff.engine.agents.demo import HELP, UNICODE, Demo, command_of
from bff.errors import ReaderLeft, UpstreamError
from bff.http import waiting
from bff.http.waiting import Watch
from bff.upstream.messages import ChatMessage

ANN = Identity("ann", "org")
NAMES = ["slow", "error", "cut", "silence", "big", "unicode", "tool", "help"]


def said(message: str, watch: Watch) -> list:
    command = command_of(message)
    assert command is not None
    return [piece for piece in command(watch) if piece is not None]


def text(pieces: list) -> str:
    return "".join(piece for piece in pieces if isinstance(piece, str))


def test_anything_else_is_said_back(watch):
    assert [*Demo(0).stream([ChatMessage("user", "one"), ChatMessage("user", "two words")], ANN, watch)] == ["two ", "words"]


@pytest.mark.parametrize(
    "message", ["hello", "", "/", "//", "/ help", "/Help", "/helpme", "help", "say /help", "/nothing", "/slow2 a"]
)
def test_what_is_no_command_is_none(message):
    assert command_of(message) is None


@given(st.text())
def test_a_text_without_a_slash_is_no_command(message):
    assert command_of(f"x{message}") is None


@pytest.mark.parametrize("message", ["/help", " /help\n", "/help me", "/help\tme\nplease"])
def test_help_lists_every_command(message, watch):
    listed = text(said(message, watch))

    assert listed == HELP
    assert [line.split()[0].strip("/") for line in listed.splitlines() if line.startswith("/")] == NAMES


def test_slow_spreads_a_text_over_its_seconds(watch):
    start = monotonic()

    events = said("/slow 0.1 one two  three", watch)

    assert monotonic() - start >= 0.1
    assert events == ["one ", "two  ", "three"]


def test_slow_says_its_first_word_at_once(watch):
    saying = command_of("/slow 3600 one two")(watch)

    assert next(saying) == "one "
    assert next(saying) is None


@pytest.mark.parametrize("message", ["/slow", "/slow 0", "/slow 1 word", "/slow x y"])
def test_slow_is_forgiving(message, watch):
    watch.end(ReaderLeft())

    assert isinstance(next(command_of(message)(watch)), str)


def test_slow_keeps_the_texts_own_lines(watch):
    assert text(said("/slow 0 one\n\ntwo\n three", watch)) == "one\n\ntwo\n three"


def test_silence_says_nothing_first(watch):
    start = monotonic()

    events = list(command_of("/silence 0.05")(watch))

    assert monotonic() - start >= 0.05
    assert events[0] is None
    assert "0.05 seconds" in text([event for event in events if event is not None])


@pytest.mark.parametrize("message", ["/silence 3600", "/silence 999999999", "/slow 3600 one two"])
def test_waiting_ends_when_the_reader_has_left(message, watch):
    saying = command_of(message)(watch)

    while next(saying) is not None:
        pass
    watch.end(ReaderLeft())

    with pytest.raises(ReaderLeft):
        next(saying)


@pytest.mark.parametrize(
    ("message", "kib"), [("/big 1", 1), ("/big 300", 300), ("/big", 1), ("/big 0", 0), ("/big 99999", 8 * 1024)]
)
def test_big_is_as_big_as_it_is_told_within_reason(message, kib, watch):
    assert len(text(said(message, watch)).encode()) == kib * 1024


def test_unicode_comes_through_as_it_is(watch):
    answer = text(said("/unicode", watch))

    assert answer == UNICODE
    assert {"\u2028", "\u2029", "\u0085", "\t", "\\", '"'} <= set(answer)
    assert answer.encode()


def test_tool_tells_of_a_tool_before_it_answers(watch):
    events = said("/tool", watch)

    assert [event["type"] for event in events[:-1]] == ["status", "tool_use", "tool_result"]
    assert events[-1] == "For God so loved the world."


def test_error_says_a_piece_and_fails(watch):
    pieces = command_of("/error")(watch)

    assert next(pieces) == "This goes "
    with pytest.raises(UpstreamError, match="/error"):
        next(pieces)


def test_cut_breaks_the_callers_connection():
    ours, theirs = socket.socketpair()
    with ours, theirs, closing(waiting.watch(ours)) as watch:
        with pytest.raises(ReaderLeft):
            list(command_of("/cut")(watch))

        assert theirs.recv(1) == b""


@pytest.mark.parametrize("name", NAMES)
def test_a_command_can_be_given_twice(name, watch):
    watch.end(ReaderLeft())
    first, again = (next(command_of(f"/{name}")(watch), None) for _ in range(2))

    assert first == again
