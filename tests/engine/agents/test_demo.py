import socket
from contextlib import closing
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.auth.identity import Identity
from bff.engine.agents.demo import HELP, UNICODE, Demo, parse_command
from bff.errors import ClientDisconnected, UpstreamError
from bff.http import waiting
from bff.http.waiting import Waiter
from bff.upstream.messages import ChatMessage

ANN = Identity("ann", "org")
NAMES = ["slow", "error", "cut", "silence", "big", "unicode", "tool", "help"]


def pieces_of(message: str, waiter: Waiter) -> list:
    command = parse_command(message)
    assert command is not None
    return [piece for piece in command(waiter) if piece is not None]


def text_of(pieces: list) -> str:
    return "".join(piece for piece in pieces if isinstance(piece, str))


def test_other_messages_are_echoed(waiter):
    assert [*Demo(0).stream([ChatMessage("user", "one"), ChatMessage("user", "two words")], ANN, waiter)] == ["two ", "words"]


@pytest.mark.parametrize(
    "message", ["hello", "", "/", "//", "/ help", "/Help", "/helpme", "help", "say /help", "/nothing", "/slow2 a"]
)
def test_other_messages_are_not_commands(message):
    assert parse_command(message) is None


@given(st.text())
def test_a_text_without_a_slash_is_no_command(message):
    assert parse_command(f"x{message}") is None


@pytest.mark.parametrize("message", ["/help", " /help\n", "/help me", "/help\tme\nplease"])
def test_help_lists_every_command(message, waiter):
    listed = text_of(pieces_of(message, waiter))

    assert listed == HELP
    assert [line.split()[0].strip("/") for line in listed.splitlines() if line.startswith("/")] == NAMES


def test_slow_paces_the_text_over_its_seconds(waiter):
    start = monotonic()

    events = pieces_of("/slow 0.1 one two  three", waiter)

    assert monotonic() - start >= 0.1
    assert events == ["one ", "two  ", "three"]


def test_slow_yields_its_first_word_immediately(waiter):
    reply = parse_command("/slow 3600 one two")(waiter)

    assert next(reply) == "one "
    assert next(reply) is None


@pytest.mark.parametrize("message", ["/slow", "/slow 0", "/slow 1 word", "/slow x y"])
def test_slow_accepts_missing_and_invalid_arguments(message, waiter):
    waiter.cancel(ClientDisconnected())

    assert isinstance(next(parse_command(message)(waiter)), str)


def test_slow_preserves_line_breaks(waiter):
    assert text_of(pieces_of("/slow 0 one\n\ntwo\n three", waiter)) == "one\n\ntwo\n three"


def test_silence_yields_no_text_before_its_seconds_are_over(waiter):
    start = monotonic()

    events = list(parse_command("/silence 0.05")(waiter))

    assert monotonic() - start >= 0.05
    assert events[0] is None
    assert "0.05 s." in text_of([event for event in events if event is not None])


@pytest.mark.parametrize("message", ["/silence 3600", "/silence 999999999", "/slow 3600 one two"])
def test_waiting_ends_when_the_client_disconnects(message, waiter):
    reply = parse_command(message)(waiter)

    while next(reply) is not None:
        pass
    waiter.cancel(ClientDisconnected())

    with pytest.raises(ClientDisconnected):
        next(reply)


@pytest.mark.parametrize(
    ("message", "kib"), [("/big 1", 1), ("/big 300", 300), ("/big", 1), ("/big 0", 0), ("/big 99999", 8 * 1024)]
)
def test_big_has_the_given_size_up_to_a_maximum(message, kib, waiter):
    assert len(text_of(pieces_of(message, waiter)).encode()) == kib * 1024


def test_unicode_contains_the_difficult_characters(waiter):
    reply = text_of(pieces_of("/unicode", waiter))

    assert reply == UNICODE
    assert {"\u2028", "\u2029", "\u0085", "\t", "\\", '"'} <= set(reply)
    assert reply.encode()


def test_tool_sends_tool_events_before_its_text(waiter):
    events = pieces_of("/tool", waiter)

    assert [event["type"] for event in events[:-1]] == ["status", "tool_use", "tool_result"]
    assert events[-1] == "For God so loved the world."


def test_error_fails_after_a_first_piece(waiter):
    pieces = parse_command("/error")(waiter)

    assert next(pieces) == "This goes "
    with pytest.raises(UpstreamError, match="/error"):
        next(pieces)


def test_cut_closes_the_clients_connection():
    ours, theirs = socket.socketpair()
    with ours, theirs, closing(waiting.new_waiter(ours)) as waiter:
        with pytest.raises(ClientDisconnected):
            list(parse_command("/cut")(waiter))

        assert theirs.recv(1) == b""


@pytest.mark.parametrize("name", NAMES)
def test_a_command_can_be_repeated(name, waiter):
    waiter.cancel(ClientDisconnected())
    first, second = (next(parse_command(f"/{name}")(waiter), None) for _ in range(2))

    assert first == second
