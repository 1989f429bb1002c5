import socket
from contextlib import closing
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.auth.identity import Identity
from bff.engine.agents.demo import HELP, UNICODE, Demo, command_of
from bff.errors import ClientDisconnected, UpstreamError
from bff.http import waiting
from bff.http.waiting import Waiter
from bff.upstream.messages import ChatMessage

ANN = Identity("ann", "org")
NAMES = ["slow", "error", "cut", "silence", "big", "unicode", "tool", "help"]


def said(message: str, waiter: Waiter) -> list:
    command = command_of(message)
    assert command is not None
    return [piece for piece in command(waiter) if piece is not None]


def text(pieces: list) -> str:
    return "".join(piece for piece in pieces if isinstance(piece, str))


def test_anything_else_is_said_back(waiter):
    assert [*Demo(0).stream([ChatMessage("user", "one"), ChatMessage("user", "two words")], ANN, waiter)] == ["two ", "words"]


@pytest.mark.parametrize(
    "message", ["hello", "", "/", "//", "/ help", "/Help", "/helpme", "help", "say /help", "/nothing", "/slow2 a"]
)
def test_what_is_no_command_is_none(message):
    assert command_of(message) is None


@given(st.text())
def test_a_text_without_a_slash_is_no_command(message):
    assert command_of(f"x{message}") is None


@pytest.mark.parametrize("message", ["/help", " /help\n", "/help me", "/help\tme\nplease"])
def test_help_lists_every_command(message, waiter):
    listed = text(said(message, waiter))

    assert listed == HELP
    assert [line.split()[0].strip("/") for line in listed.splitlines() if line.startswith("/")] == NAMES


def test_slow_spreads_a_text_over_its_seconds(waiter):
    start = monotonic()

    events = said("/slow 0.1 one two  three", waiter)

    assert monotonic() - start >= 0.1
    assert events == ["one ", "two  ", "three"]


def test_slow_says_its_first_word_at_once(waiter):
    saying = command_of("/slow 3600 one two")(waiter)

    assert next(saying) == "one "
    assert next(saying) is None


@pytest.mark.parametrize("message", ["/slow", "/slow 0", "/slow 1 word", "/slow x y"])
def test_slow_is_forgiving(message, waiter):
    waiter.cancel(ClientDisconnected())

    assert isinstance(next(command_of(message)(waiter)), str)


def test_slow_keeps_the_texts_own_lines(waiter):
    assert text(said("/slow 0 one\n\ntwo\n three", waiter)) == "one\n\ntwo\n three"


def test_silence_says_nothing_first(waiter):
    start = monotonic()

    events = list(command_of("/silence 0.05")(waiter))

    assert monotonic() - start >= 0.05
    assert events[0] is None
    assert "0.05 seconds" in text([event for event in events if event is not None])


@pytest.mark.parametrize("message", ["/silence 3600", "/silence 999999999", "/slow 3600 one two"])
def test_waiting_ends_when_the_reader_has_left(message, waiter):
    saying = command_of(message)(waiter)

    while next(saying) is not None:
        pass
    waiter.cancel(ClientDisconnected())

    with pytest.raises(ClientDisconnected):
        next(saying)


@pytest.mark.parametrize(
    ("message", "kib"), [("/big 1", 1), ("/big 300", 300), ("/big", 1), ("/big 0", 0), ("/big 99999", 8 * 1024)]
)
def test_big_is_as_big_as_it_is_told_within_reason(message, kib, waiter):
    assert len(text(said(message, waiter)).encode()) == kib * 1024


def test_unicode_comes_through_as_it_is(waiter):
    answer = text(said("/unicode", waiter))

    assert answer == UNICODE
    assert {"\u2028", "\u2029", "\u0085", "\t", "\\", '"'} <= set(answer)
    assert answer.encode()


def test_tool_tells_of_a_tool_before_it_answers(waiter):
    events = said("/tool", waiter)

    assert [event["type"] for event in events[:-1]] == ["status", "tool_use", "tool_result"]
    assert events[-1] == "For God so loved the world."


def test_error_says_a_piece_and_fails(waiter):
    pieces = command_of("/error")(waiter)

    assert next(pieces) == "This goes "
    with pytest.raises(UpstreamError, match="/error"):
        next(pieces)


def test_cut_breaks_the_callers_connection():
    ours, theirs = socket.socketpair()
    with ours, theirs, closing(waiting.new_waiter(ours)) as waiter:
        with pytest.raises(ClientDisconnected):
            list(command_of("/cut")(waiter))

        assert theirs.recv(1) == b""


@pytest.mark.parametrize("name", NAMES)
def test_a_command_can_be_given_twice(name, waiter):
    waiter.cancel(ClientDisconnected())
    first, again = (next(command_of(f"/{name}")(waiter), None) for _ in range(2))

    assert first == again
