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
    subclasses,
)

ERROR_CLASSES = [cls for cls in subclasses() if cls.__module__ == "bff.errors"]
CONCRETE_CLASSES = [cls for cls in ERROR_CLASSES if cls not in {ChatError, UpstreamFailure, StorageUnavailable}]
IN_STREAMS = {"AnswerIncomplete", "AnswerTimeout", "ContextTooLong", "Interrupted"}

every_error = pytest.mark.parametrize("cls", CONCRETE_CLASSES, ids=lambda cls: cls.__name__)


def test_each_code_has_one_class_and_one_status():
    codes = sorted((cls.status, cls.code) for cls in CONCRETE_CLASSES)

    assert codes == [
        (400, "context_too_long"),
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
def test_by_code_finds_each_class(cls):
    assert BY_CODE[cls.code] is cls


@every_error
def test_each_error_has_a_sentence_for_the_user(cls):
    message = str(cls())

    assert re.fullmatch(r"[A-Z].+\.", message)
    assert cls is InternalError or message != ChatError.message


@every_error
def test_errors_have_one_json_shape(cls):
    error = cls("This went wrong.", detail="the key was k-123", message_id="m-1")

    assert error.as_json("r-1") == {"error": "This went wrong.", "code": cls.code, "request_id": "r-1"}


@every_error
def test_429_and_503_have_a_retry_after(cls):
    assert (cls().retry_after is not None) == (cls.status in {429, 503})


def test_retry_after_can_be_set_per_error():
    slow, at_once = errors.TooManyRequests(retry_after=60), errors.TooManyRequests(retry_after=0)

    assert (slow.retry_after, at_once.retry_after) == (60, 0)
    assert errors.TooManyRequests().retry_after == errors.TooManyRequests.retry_after


@pytest.mark.parametrize("cls", ERROR_CLASSES, ids=lambda cls: cls.__name__)
def test_the_docstring_lists_every_error(cls):
    documented = errors.__doc__

    if cls in {ChatError, UpstreamFailure, StorageUnavailable} or cls.__name__ in IN_STREAMS:
        assert re.search(rf"\b{cls.__name__}\b", documented)
    else:
        assert re.search(rf"\b{cls.__name__} {cls.status}\b", documented)


def test_the_docstring_lists_only_existing_errors():
    documented = re.findall(r"\b([A-Z]\w+) (\d{3})\b", errors.__doc__)

    assert {name: int(status) for name, status in documented} == {
        cls.__name__: cls.status for cls in CONCRETE_CLASSES if cls.__name__ not in IN_STREAMS
    }
    assert re.search(r"in streams: (.*)", errors.__doc__)[1].split(", ") == sorted(IN_STREAMS)


@pytest.mark.parametrize("cls", [ClientDisconnected, SettingsError])
def test_exceptions_that_are_not_sent_to_users_are_no_chat_errors(cls):
    assert not issubclass(cls, ChatError)
    assert re.search(rf"^    {cls.__name__}\b", errors.__doc__, re.MULTILINE)
