import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.errors import ServerFull
from bff.http.sse import Event, encode
from bff.upstream import events
from tests.frames import decoded

texts = st.text(st.characters(exclude_categories=["Cs"]))


def content(event: Event) -> dict:
    return json.loads(event.data)


def test_a_status_has_message_position_and_id():
    queued, running = events.status(events.QUEUED, 3, "7"), events.status(events.PROCESSING, 0, "8")

    assert content(queued) == {"type": "status", "message": "Message queued...", "position": 3}
    assert content(running) == {"type": "status", "message": "Processing...", "position": 0}
    assert (queued.id, running.id) == ("7", "8")


def test_a_status_without_a_position_omits_it():
    assert content(events.status("Thinking...")) == {"type": "status", "message": "Thinking..."}


def test_an_error_event_has_the_shape_of_error_responses():
    problem = ServerFull(detail="not for a browser")

    event = events.error(problem, "r-1", "9")

    assert content(event) == {"type": "error"} | problem.as_json("r-1")
    assert event.id == "9"


@pytest.mark.parametrize(("text", "responses"), [("In the begin", ["In the begin"]), ("", [])])
def test_a_stopped_event_has_the_text_so_far(text, responses):
    assert content(events.stopped(text)) == {
        "type": "stopped",
        "response": {"responses": responses, "response_language": None, "voice_audio_base64": None},
    }


def test_a_keepalive_has_no_id():
    event = events.keepalive()

    assert content(event) == {"type": "keepalive"}
    assert event.id == ""


@given(texts)
def test_every_event_is_one_frame_that_starts_with_data(text):
    for event in (events.status(text, 1, "7"), events.stopped(text), events.error(ServerFull(text), "r", "7")):
        frame = encode(event)

        (read,) = decoded([frame])

        assert frame.startswith(b"data: {")
        assert frame.isascii()
        assert frame.count(b"\n\n") == 1
        assert read == Event("message", event.data, event.id)
