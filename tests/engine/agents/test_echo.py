import threading
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.auth.identity import Identity
from bff.engine.agents.echo import Echo, paced, words
from bff.errors import ClientDisconnected
from bff.http import waiting
from bff.upstream.messages import ChatMessage
from tests.live import DEADLINE

FOR_EVER = 3600.0
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
def test_a_text_is_cut_after_its_white_space(text, pieces):
    assert list(words(text)) == pieces


@given(st.text())
def test_the_words_joined_are_the_text(text):
    assert "".join(words(text)) == text


def test_a_long_text_is_cut_in_no_time():
    start = monotonic()

    for text in (" " * 2**20, "x" * 2**20, "x " * 2**19, (" " * 1023 + "x") * 2**10):
        assert "".join(words(text)) == text

    assert monotonic() - start < DEADLINE


@given(st.text())
def test_what_was_said_is_said_back(text):
    waiter = waiting.new_waiter()

    reply = [piece for piece in Echo(0).stream(user(text), ANN, waiter) if piece is not None]
    waiter.close()

    assert "".join(reply) == text


def test_what_the_user_said_last_is_said_back(waiter):
    history = [
        ChatMessage("user", "first"),
        ChatMessage("assistant", "a reply"),
        ChatMessage("user", "last words"),
        ChatMessage("assistant", "another"),
    ]

    assert list(Echo(0).stream(history, ANN, waiter)) == ["last ", "words"]


@pytest.mark.parametrize("history", [[], [ChatMessage("assistant", "Hello?")]], ids=["nothing", "nothing from the user"])
def test_without_a_question_there_is_no_reply(history, waiter):
    assert list(Echo(0).stream(history, ANN, waiter)) == []


def test_the_first_word_comes_at_once(waiter):
    reply = Echo(FOR_EVER).stream(user("one two"), ANN, waiter)

    assert next(reply) == "one "
    assert next(reply) is None


def test_each_other_word_comes_after_its_pause(waiter):
    start = monotonic()

    pieces = list(paced(["a", "b", "c"], 0.02, waiter))

    assert monotonic() - start >= 0.04
    assert [piece for piece in pieces if piece] == ["a", "b", "c"]
    assert None in pieces[1 : pieces.index("b")]


def test_a_pause_lasts_though_somebody_wakes_it(waiter):
    waiting, start = waiter.sleep(0.05), monotonic()

    for _ in waiting:
        waiter.wake()

    assert monotonic() - start >= 0.05


def test_no_pause_is_none_at_all(waiter):
    assert list(waiter.sleep(0)) == []


def test_a_reply_ends_when_its_reader_has_left(waiter):
    reply = Echo(FOR_EVER).stream(user("one two"), ANN, waiter)
    said = [next(reply), next(reply)]
    leaving = threading.Thread(target=waiter.cancel, args=(ClientDisconnected(),))

    leaving.start()
    with pytest.raises(ClientDisconnected):
        next(reply)
    leaving.join(DEADLINE)

    assert said == ["one ", None]
    assert next(reply, "nothing more") == "nothing more"
