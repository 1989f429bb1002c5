"""The judge of the fault suite itself: what it lets pass, and what it does not."""

from typing import Any

import pytest

from tests.faults.judge import OWN_CONNECTION, assert_told_the_same_end, different_ends
from tests.faults.load import Stream

COMPLETE = {"type": "complete", "response": {"responses": ["hello"]}}


def told(*events: dict[str, Any], comes_back: bool = True, message_id: str = "m-1") -> Stream:
    stream = Stream("ada", "hello", "key", comes_back)
    stream.message_id = message_id
    stream.events = [{"type": "status", "at": 1.0}, *events]
    return stream


def error(code: str, request_id: str = "r-1") -> dict[str, Any]:
    return {"type": "error", "error": "A sentence.", "code": code, "request_id": request_id}


def test_readers_told_the_same_by_different_requests_pass():
    assert_told_the_same_end([told(COMPLETE), told(COMPLETE | {"at": 5.0, "id": "3-0"}), told()])
    assert_told_the_same_end([told(error("interrupted")), told(error("interrupted", "r-2"))])
    assert_told_the_same_end([told(COMPLETE), told(error("interrupted"), message_id="m-2")])


@pytest.mark.parametrize("code", [*sorted(OWN_CONNECTION), "answer_incomplete", "interrupted", "internal_error"])
def test_a_reader_that_comes_back_may_be_told_no_other_end(code):
    assert different_ends([told(COMPLETE), told(error(code))]).keys() == {"m-1"}
    with pytest.raises(AssertionError, match="different ends"):
        assert_told_the_same_end([told(COMPLETE), told(error(code))])


def test_two_whole_answers_must_be_the_same_one():
    assert different_ends([told(COMPLETE), told({"type": "complete", "response": {"responses": ["else"]}})])


@pytest.mark.parametrize("code", sorted(OWN_CONNECTION))
def test_one_that_does_not_may_be_told_of_its_own_connection(code):
    assert_told_the_same_end([told(COMPLETE), told(error(code), comes_back=False)])


@pytest.mark.parametrize("code", ["answer_incomplete", "answer_timeout", "interrupted", "internal_error"])
def test_but_of_nothing_else(code):
    assert different_ends([told(COMPLETE), told(error(code), comes_back=False)])
