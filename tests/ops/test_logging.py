import json
import logging
import re
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.http import tracing
from bff.ops.logging import JSONLines, TextLines, configure_logging
from tests.frames import decoded


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Restores handlers and level after the test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def no_request() -> None:
    """Clears the request of an earlier test in this thread."""
    tracing.current.set(None)


def record(message: str = "hello", *args: object, level: int = logging.INFO, exc_info=None, **extra) -> logging.LogRecord:
    log_record = logging.getLogger("bff.test").makeRecord("bff.test", level, __file__, 1, message, args, exc_info, extra=extra)
    log_record.created, log_record.msecs = 1_700_000_000.007, 7.0
    return log_record


def exc_info_of_a_value_error():
    try:
        raise ValueError("first line\nsecond line")
    except ValueError:
        return sys.exc_info()


def as_json(*args, **options) -> dict:
    line = JSONLines().format(record(*args, **options))
    assert len(line.splitlines()) == 1
    return json.loads(line)


def as_text(*args, **options) -> str:
    return TextLines().format(record(*args, **options))


def test_a_json_line_has_time_level_logger_and_message():
    assert as_json("%s is %d", "it", 7, level=logging.WARNING) == {
        "time": "2023-11-14T22:13:20.007Z",
        "level": "warning",
        "logger": "bff.test",
        "message": "it is 7",
    }


def test_a_json_line_has_the_ids_of_its_request():
    tracing.begin({"X-Request-ID": "r-1", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})

    line = as_json("hello")

    assert (line["request_id"], line["trace_id"]) == ("r-1", "a" * 32)


def test_extra_values_become_fields():
    line = as_json(status=200, ms=1.5, user=None, deep={"a": [1]})

    assert (line["status"], line["ms"], line["user"], line["deep"]) == (200, 1.5, None, {"a": [1]})


def test_values_that_are_not_json_become_text():
    line = as_json(kinds={1}, problem=ValueError("x"))

    assert (line["kinds"], line["problem"]) == ("{1}", "x")


def test_an_exception_is_part_of_its_json_line():
    line = as_json("it broke", exc_info=exc_info_of_a_value_error())

    assert line["message"] == "it broke"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: first line\nsecond line")


@given(st.text(), st.text())
def test_any_text_is_logged_as_one_json_line(message, field):
    line = as_json("%s", message, field=field, path="/a\nb")

    assert (line["message"], line["field"]) == (message, field)


def test_a_text_line_has_time_level_message_and_fields():
    assert as_text("%s is %d", "it", 7) == "22:13:20.007 INFO    it is 7"
    assert as_text("hello", status=200, ended="complete") == "22:13:20.007 INFO    hello status=200 ended=complete"


def test_a_traceback_follows_its_text_line():
    first, second, *_ = as_text("it broke", exc_info=exc_info_of_a_value_error(), code="x").splitlines()

    assert first == "22:13:20.007 INFO    it broke code=x"
    assert second.startswith("Traceback")


@pytest.mark.parametrize("control", ["\n", "\r\n", "\x1b[2K", "\u2028"], ids=ascii)
def test_control_characters_cannot_forge_a_text_line(control):
    forged = f"/{control}00:00:00.000 INFO    all is well"

    for line in (as_text("GET %s", forged), as_text("GET", path=forged)):
        assert len(line.splitlines()) == 1
        assert line.isprintable()


@pytest.mark.parametrize(("style", "line"), [("json", r'\{.*"hello".*\}\n'), ("text", r"[0-9:.]{12} INFO    hello\n")])
def test_each_record_is_written_to_stderr_once(style, line, root, capsys):
    configure_logging("INFO", style)
    configure_logging("INFO", style)

    logging.getLogger("anything").info("hello")
    logging.getLogger("anything").debug("hidden")

    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(line, err)


def test_debug_records_are_logged_at_level_debug(root, capsys):
    configure_logging("DEBUG", "json")

    logging.getLogger("anything").debug("shown")

    assert json.loads(capsys.readouterr().err)["message"] == "shown"


def test_stream_contents_are_not_logged_at_level_debug(root, capsys):
    configure_logging("DEBUG", "json")

    decoded([b"somebody's message\ndata: x\n\n"])

    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("style", ["json", "text"])
@pytest.mark.parametrize("secret", ["s3cret-key", 'quo"ted\\key'])
def test_secrets_are_redacted(style, secret, root, capsys):
    configure_logging("INFO", style, [secret, ""])

    logging.getLogger("anything").info("refused: %s", secret, extra={"detail": f"bad key {secret}!"})

    line = capsys.readouterr().err
    assert "bad key …!" in line
    assert "refused: …" in line
    assert secret not in line
    assert json.dumps(secret)[1:-1] not in line


@pytest.mark.parametrize("style", ["json", "text"])
def test_colours_of_the_development_server_are_removed(style, root, capsys):
    configure_logging("INFO", style)

    logging.getLogger("werkzeug").info("%s %d", "\x1b[31m\x1b[1mGET / HTTP/1.1\x1b[0m", 500)

    line = capsys.readouterr().err
    assert "GET / HTTP/1.1 500" in line
    assert "x1b" not in line
    assert "u001b" not in line


@pytest.mark.parametrize("server", ["gunicorn.error", "werkzeug"])
def test_tickets_are_redacted_in_the_servers_log_lines(server, root, capsys):
    configure_logging("INFO", "json")
    configure_logging("INFO", "json")

    logging.getLogger(server).error('Error handling "%s" %d', "GET /x?ids=0&ticket=abc.def-_1&more=1 HTTP/1.1", 7)

    assert json.loads(capsys.readouterr().err)["message"] == 'Error handling "GET /x?ids=0&ticket=…&more=1 HTTP/1.1" 7'
