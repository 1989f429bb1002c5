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
    """Logging as it was, after the test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def no_request() -> None:
    """Whatever a test before this one has left in this thread."""
    tracing.current.set(None)


def record(message: str = "hello", *args: object, level: int = logging.INFO, exc_info=None, **extra) -> logging.LogRecord:
    made = logging.getLogger("bff.test").makeRecord("bff.test", level, __file__, 1, message, args, exc_info, extra=extra)
    made.created, made.msecs = 1_700_000_000.007, 7.0
    return made


def a_failure():
    try:
        raise ValueError("first line\nsecond line")
    except ValueError:
        return sys.exc_info()


def as_json(*args, **more) -> dict:
    line = JSONLines().format(record(*args, **more))
    assert len(line.splitlines()) == 1
    return json.loads(line)


def as_text(*args, **more) -> str:
    return TextLines().format(record(*args, **more))


def test_a_json_line_says_when_who_and_what():
    assert as_json("%s is %d", "it", 7, level=logging.WARNING) == {
        "time": "2023-11-14T22:13:20.007Z",
        "level": "warning",
        "logger": "bff.test",
        "message": "it is 7",
    }


def test_a_json_line_says_which_request_it_is_about():
    tracing.begin({"X-Request-ID": "r-1", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})

    line = as_json("hello")

    assert (line["request_id"], line["trace_id"]) == ("r-1", "a" * 32)


def test_what_was_given_as_extra_is_a_field():
    line = as_json(status=200, ms=1.5, user=None, deep={"a": [1]})

    assert (line["status"], line["ms"], line["user"], line["deep"]) == (200, 1.5, None, {"a": [1]})


def test_what_is_no_json_is_said_as_text():
    line = as_json(kinds={1}, problem=ValueError("x"))

    assert (line["kinds"], line["problem"]) == ("{1}", "x")


def test_an_exception_stays_on_its_line():
    line = as_json("it broke", exc_info=a_failure())

    assert line["message"] == "it broke"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: first line\nsecond line")


@given(st.text(), st.text())
def test_whatever_is_logged_is_one_json_line(message, field):
    line = as_json("%s", message, field=field, path="/a\nb")

    assert (line["message"], line["field"]) == (message, field)


def test_a_text_line_says_when_and_what():
    assert as_text("%s is %d", "it", 7) == "22:13:20.007 INFO    it is 7"
    assert as_text("hello", status=200, ended="complete") == "22:13:20.007 INFO    hello status=200 ended=complete"


def test_a_text_lines_exception_follows_it():
    first, second, *_ = as_text("it broke", exc_info=a_failure(), code="x").splitlines()

    assert first == "22:13:20.007 INFO    it broke code=x"
    assert second.startswith("Traceback")


@pytest.mark.parametrize("cut", ["\n", "\r\n", "\x1b[2K", "\u2028"], ids=ascii)
def test_nobody_can_write_a_text_line_of_their_own(cut):
    forged = f"/{cut}00:00:00.000 INFO    all is well"

    for line in (as_text("GET %s", forged), as_text("GET", path=forged)):
        assert len(line.splitlines()) == 1
        assert line.isprintable()


@pytest.mark.parametrize(("style", "line"), [("json", r'\{.*"hello".*\}\n'), ("text", r"[0-9:.]{12} INFO    hello\n")])
def test_everything_goes_to_stderr_once(style, line, root, capsys):
    configure_logging("INFO", style)
    configure_logging("INFO", style)

    logging.getLogger("anything").info("hello")
    logging.getLogger("anything").debug("unheard")

    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(line, err)


def test_a_lower_level_lets_more_through(root, capsys):
    configure_logging("DEBUG", "json")

    logging.getLogger("anything").debug("heard")

    assert json.loads(capsys.readouterr().err)["message"] == "heard"


def test_what_comes_over_the_wire_is_in_no_log_even_at_debug(root, capsys):
    configure_logging("DEBUG", "json")

    decoded([b"somebody's message\ndata: x\n\n"])

    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("style", ["json", "text"])
@pytest.mark.parametrize("secret", ["s3cret-key", 'quo"ted\\key'])
def test_a_secret_that_somebody_repeats_to_us_is_left_out(style, secret, root, capsys):
    configure_logging("INFO", style, [secret, ""])

    logging.getLogger("anything").info("refused: %s", secret, extra={"detail": f"bad key {secret}!"})

    line = capsys.readouterr().err
    assert "bad key …!" in line
    assert "refused: …" in line
    assert secret not in line
    assert json.dumps(secret)[1:-1] not in line


@pytest.mark.parametrize("server", ["gunicorn.error", "werkzeug"])
def test_a_servers_own_lines_hold_no_ticket(server, root, capsys):
    configure_logging("INFO", "json")
    configure_logging("INFO", "json")

    logging.getLogger(server).error('Error handling "%s" %d', "GET /x?ids=0&ticket=abc.def-_1&more=1 HTTP/1.1", 7)

    assert json.loads(capsys.readouterr().err)["message"] == 'Error handling "GET /x?ids=0&ticket=…&more=1 HTTP/1.1" 7'
