import re

import pytest

from bff import errors
from bff.errors import (
    BY_CODE,
    ChatError,
    ClientDisconnected,
    InternalError,
    SettingsError,
    StorageUnavailable,
    UpstreamFailure,
    family,
)

KINDS = [kind for kind in family() if kind.__module__ == "bff.errors"]
LEAVES = [kind for kind in KINDS if kind not in {ChatError, UpstreamFailure, StorageUnavailable}]
IN_STREAMS = {"AnswerIncomplete", "AnswerTimeout", "Interrupted"}

every_error = pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)


def test_every_code_of_the_wire_exists_exactly_once_with_its_status():
    codes = sorted((kind.status, kind.code) for kind in LEAVES)

    assert codes == [
        (400, "invalid_request"),
        (401, "unauthorized"),
        (403, "forbidden"),
        (404, "not_found"),
        (405, "method_not_allowed"),
        (409, "busy"),
        (410, "expired"),
        (411, "length_required"),
        (413, "too_large"),
        (415, "unsupported_media_type"),
        (416, "range_not_satisfiable"),
        (422, "idempotency_conflict"),
        (429, "too_many_requests"),
        (500, "internal_error"),
        (502, "answer_incomplete"),
        (502, "interrupted"),
        (502, "upstream_error"),
        (503, "server_full"),
        (503, "server_restarting"),
        (503, "upstream_unavailable"),
        (504, "answer_timeout"),
        (504, "upstream_timeout"),
    ]


@every_error
def test_an_error_is_found_by_its_code(kind):
    assert BY_CODE[kind.code] is kind


@every_error
def test_an_error_says_a_sentence_to_its_user(kind):
    message = str(kind())

    assert re.fullmatch(r"[A-Z].+\.", message)
    assert kind is InternalError or message != ChatError.message


@every_error
def test_an_error_as_json_has_the_one_shape(kind):
    problem = kind("This went wrong.", detail="the key was k-123", message_id="m-1")

    assert problem.as_json("r-1") == {"error": "This went wrong.", "code": kind.code, "request_id": "r-1"}


@every_error
def test_whoever_may_try_again_later_is_told_when(kind):
    assert (kind().retry_after is not None) == (kind.status in {429, 503})


def test_when_to_try_again_can_be_said_for_one_error():
    patient, eager = errors.TooManyRequests(retry_after=60), errors.TooManyRequests(retry_after=0)

    assert (patient.retry_after, eager.retry_after) == (60, 0)
    assert errors.TooManyRequests().retry_after == errors.TooManyRequests.retry_after


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_drawn_tree_has_every_error(kind):
    drawn = errors.__doc__

    if kind in {ChatError, UpstreamFailure, StorageUnavailable} or kind.__name__ in IN_STREAMS:
        assert re.search(rf"\b{kind.__name__}\b", drawn)
    else:
        assert re.search(rf"\b{kind.__name__} {kind.status}\b", drawn)


def test_the_drawn_tree_has_no_error_that_does_not_exist():
    drawn = re.findall(r"\b([A-Z]\w+) (\d{3})\b", errors.__doc__)

    assert {name: int(status) for name, status in drawn} == {
        kind.__name__: kind.status for kind in LEAVES if kind.__name__ not in IN_STREAMS
    }
    assert re.search(r"in streams: (.*)", errors.__doc__)[1].split(", ") == sorted(IN_STREAMS)


@pytest.mark.parametrize("kind", [ClientDisconnected, SettingsError])
def test_what_no_user_is_told_is_outside_the_family(kind):
    assert not issubclass(kind, ChatError)
    assert re.search(rf"^    {kind.__name__}\b", errors.__doc__, re.MULTILINE)
