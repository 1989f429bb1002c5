"""Log output: one line per record, as JSON or as text. Users' messages are never logged."""

import errno
import json
import logging
import re
import sys
import time
from collections.abc import Iterable
from typing import Any, Final

from bff.http import tracing

_STANDARD: Final = frozenset(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {"message", "asctime", "taskName"}

_TICKET: Final = re.compile(r"(\bticket=)[^&\s\"']+")
_COLOUR: Final = re.compile(r"\x1b\[\d*m")


def configure_logging(level: str, style: str, secrets: Iterable[str] = ()) -> None:
    """`style`: json or text. Writes all records to stderr, with `secrets` redacted."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONLines(secrets) if style == "json" else TextLines(secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for server in ("gunicorn.error", "werkzeug"):  # They log URLs with their query: of failed requests, and of all.
        logging.getLogger(server).addFilter(_redact_ticket)
    logging.getLogger("gunicorn.error").addFilter(_is_no_abort)
    logging.getLogger("werkzeug").addFilter(_remove_colours)


def _redact_ticket(record: logging.LogRecord) -> bool:
    return _replace(_TICKET, r"\1…", record)


def _remove_colours(record: logging.LogRecord) -> bool:
    return _replace(_COLOUR, "", record)


def _replace(pattern: re.Pattern[str], text: str, record: logging.LogRecord) -> bool:
    """For filters: returns True, as the record is kept."""
    record.msg, record.args = pattern.sub(text, record.getMessage()), None
    return True


def _is_no_abort(record: logging.LogRecord) -> bool:
    """Drops the traceback that gunicorn logs for each aborted connection; bff/ops/connections.py counts them.

    A blocked write raises TimeoutError after its timeout, and EBADF if gevent shuts its socket down.
    """
    error = record.exc_info[1] if record.exc_info else None
    was_aborted = isinstance(error, TimeoutError) or (isinstance(error, OSError) and error.errno == errno.EBADF)
    return not (was_aborted and record.msg == "Socket error processing request.")


class RedactingFormatter(logging.Formatter):
    """Redacts secrets: an upstream error may echo the API key it was sent."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._secrets = {form for secret in secrets if secret for form in (secret, json.dumps(secret)[1:-1])}

    def format(self, record: logging.LogRecord) -> str:
        line = self.line(record)
        for secret in self._secrets:
            line = line.replace(secret, "…")
        return line

    def line(self, record: logging.LogRecord) -> str:
        return super().format(record)


class JSONLines(RedactingFormatter):
    def line(self, record: logging.LogRecord) -> str:
        line = {"time": _time(record), "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line | tracing.fields() | _fields(record), default=str)


class TextLines(RedactingFormatter):
    def line(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        line = f"{_time(record)[11:23]} {record.levelname:7} {_on_one_line(record.getMessage() + fields)}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _on_one_line(text: str) -> str:
    """Escapes control characters: a request's path could contain a line feed or a terminal's escape sequence."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The fields passed as `extra`."""
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{moment}.{int(record.msecs):03d}Z"
