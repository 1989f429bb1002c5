import threading
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.auth.identity import Identity
from bff.engine.agents.echo import Echo, paced, split_words
from bff.errors import ClientDisconnected
from bff.http import waiting
from bff.upstream.messages import ChatMessage
from tests.live import DEADLINE

LONG_SECONDS = 3600.0
ANN = Identity("ann", "org")


def user(text: str) -> list[ChatMessage]:
    return [ChatMessage("user", text)]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("In the beginning", ["In ", "the ", "beginning"]),
        ("  a\n\n b\t", ["  a\n\n ", "b\t"]),
        ("word", ["word"]),
        (" \u2003\n", [" \u2003\n"]),
        ("", []),
    ],
)
def test_a_text_is_split_after_white_space(text, pieces):
    assert list(split_words(text)) == pieces


@given(st.text())
def test_the_words_joined_are_the_text(text):
    assert "".join(split_words(text)) == text


def test_splitting_takes_linear_time():
    start = monotonic()

    for text in (" " * 2**20, "x" * 2**20, "x " * 2**19, (" " * 1023 + "x") * 2**10):
        assert "".join(split_words(text)) == text

    assert monotonic() - start < DEADLINE


@given(st.text())
def test_the_message_is_echoed(text):
    waiter = waiting.new_waiter()

    reply = [piece for piece in Echo(0).stream(user(text), ANN, waiter) if piece is not None]
    waiter.close()

    assert "".join(reply) == text


def test_the_last_user_message_is_echoed(waiter):
    history = [
        ChatMessage("user", "first"),
        ChatMessage("assistant", "a reply"),
        ChatMessage("user", "last words"),
        ChatMessage("assistant", "another"),
    ]

    assert list(Echo(0).stream(history, ANN, waiter)) == ["last ", "words"]


@pytest.mark.parametrize("history", [[], [ChatMessage("assistant", "Hello?")]], ids=["nothing", "nothing from the user"])
def test_without_a_user_message_the_reply_is_empty(history, waiter):
    assert list(Echo(0).stream(history, ANN, waiter)) == []


def test_the_first_word_is_immediate(waiter):
    reply = Echo(LONG_SECONDS).stream(user("one two"), ANN, waiter)

    assert next(reply) == "one "
    assert next(reply) is None


def test_further_words_follow_after_a_pause(waiter):
    start = monotonic()

    pieces = list(paced(["a", "b", "c"], 0.02, waiter))

    assert monotonic() - start >= 0.04
    assert [piece for piece in pieces if piece] == ["a", "b", "c"]
    assert None in pieces[1 : pieces.index("b")]


def test_a_pause_is_not_shortened_by_wake(waiter):
    pause, start = waiter.sleep(0.05), monotonic()

    for _ in pause:
        waiter.wake()

    assert monotonic() - start >= 0.05


def test_a_pause_of_zero_yields_nothing(waiter):
    assert list(waiter.sleep(0)) == []


def test_a_reply_ends_when_the_client_disconnects(waiter):
    reply = Echo(LONG_SECONDS).stream(user("one two"), ANN, waiter)
    pieces = [next(reply), next(reply)]
    disconnect = threading.Thread(target=waiter.cancel, args=(ClientDisconnected(),))

    disconnect.start()
    with pytest.raises(ClientDisconnected):
        next(reply)
    disconnect.join(DEADLINE)

    assert pieces == ["one ", None]
    assert next(reply, "nothing more") == "nothing more"
