"""An agent's reply as an answer, bounded in time and in size."""

import json
from collections.abc import Generator, Iterator
from itertools import repeat

import pytest

from bff.agents import REPLY_MOST, Said
from bff.agents.answer import Reply
from bff.errors import AnswerIncomplete, AnswerTimeout, UpstreamError
from bff.identity import Identity

ANN = Identity("ann", "org")


class Saying:
    id = name = description = "saying"

    def __init__(self, pieces: Iterator[str | None], pause: float = 0.0) -> None:
        self._pieces = pieces
        self._pause = pause
        self.closed = False

    def stream(self, history, identity, watch) -> Generator[str | None]:
        try:
            for piece in self._pieces:
                yield piece
                yield from watch.pause(self._pause)
        finally:
            self.closed = True


def told(agent: Saying, watch, seconds: float = 60.0) -> list[dict]:
    events = Reply(agent, [Said("user", "?")], ANN, seconds).events(watch)
    return [json.loads(event.data) for event in events if event is not None]


def test_its_pieces_come_one_by_one_and_all_of_it_at_the_end(watch):
    last = {"responses": ["one two"], "response_language": None, "voice_audio_base64": None}

    assert told(Saying(iter(["one ", None, "two"])), watch) == [
        {"type": "progress", "text": "one "},
        {"type": "progress", "text": "two"},
        {"type": "complete", "response": last},
    ]


def test_one_that_never_ends_is_ended(watch):
    agent = Saying(repeat("word "), pause=0.01)

    with pytest.raises(AnswerTimeout):
        told(agent, watch, seconds=0.1)

    assert agent.closed


def test_one_that_grows_too_long_is_ended(watch):
    agent = Saying(repeat("x" * 1000))

    with pytest.raises(UpstreamError) as ended:
        told(agent, watch)

    assert str(REPLY_MOST) in ended.value.detail
    assert agent.closed


@pytest.mark.parametrize("pieces", [[], ["", " "], [None]])
def test_one_that_says_nothing_is_no_answer(watch, pieces):
    with pytest.raises(AnswerIncomplete):
        told(Saying(iter(pieces)), watch)
