"""The consistency check of the fault tests: what it accepts and what it rejects."""

from typing import Any

import pytest

from tests.faults.consistency import CONNECTION_ERRORS, assert_same_end, different_ends
from tests.faults.load import Stream

COMPLETE = {"type": "complete", "response": {"responses": ["hello"]}}


def stream_of(*events: dict[str, Any], resumable: bool = True, message_id: str = "m-1") -> Stream:
    stream = Stream("ada", "hello", "key", resumable)
    stream.message_id = message_id
    stream.events = [{"type": "status", "at": 1.0}, *events]
    return stream


def error(code: str, request_id: str = "r-1") -> dict[str, Any]:
    return {"type": "error", "error": "A sentence.", "code": code, "request_id": request_id}


def test_the_same_end_in_different_requests_is_accepted():
    assert_same_end([stream_of(COMPLETE), stream_of(COMPLETE | {"at": 5.0, "id": "3-0"}), stream_of()])
    assert_same_end([stream_of(error("interrupted")), stream_of(error("interrupted", "r-2"))])
    assert_same_end([stream_of(COMPLETE), stream_of(error("interrupted"), message_id="m-2")])


@pytest.mark.parametrize("code", [*sorted(CONNECTION_ERRORS), "answer_incomplete", "interrupted", "internal_error"])
def test_a_different_end_of_a_resumable_reader_is_rejected(code):
    assert different_ends([stream_of(COMPLETE), stream_of(error(code))]).keys() == {"m-1"}
    with pytest.raises(AssertionError, match="different ends"):
        assert_same_end([stream_of(COMPLETE), stream_of(error(code))])


def test_different_complete_replies_are_rejected():
    assert different_ends([stream_of(COMPLETE), stream_of({"type": "complete", "response": {"responses": ["else"]}})])


@pytest.mark.parametrize("code", sorted(CONNECTION_ERRORS))
def test_a_connection_error_of_a_reader_that_does_not_resume_is_accepted(code):
    assert_same_end([stream_of(COMPLETE), stream_of(error(code), resumable=False)])


@pytest.mark.parametrize("code", ["answer_incomplete", "answer_timeout", "interrupted", "internal_error"])
def test_another_error_of_a_reader_that_does_not_resume_is_rejected(code):
    assert different_ends([stream_of(COMPLETE), stream_of(error(code), resumable=False)])
