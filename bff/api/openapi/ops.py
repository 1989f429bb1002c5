"""What those who run it ask for, and the page."""

from typing import Final

from bff import errors
from bff.api.openapi import answers, events
from bff.api.openapi.operation import Answer, Operation

ANYBODYS: Final = (errors.InternalError, errors.ServerRestarting)

OPERATIONS: Final = {
    "GET /healthz": Operation(
        "Is the process alive?",
        {200: Answer("It is.", answers.Alive), 503: Answer("It should be restarted.", answers.Alive)},
        (errors.InternalError,),
        public=True,
    ),
    "GET /readyz": Operation(
        "May the process get traffic?",
        {200: Answer("It may.", answers.Ready), 503: Answer("Not now, and why.", answers.Ready)},
        (errors.InternalError,),
        public=True,
    ),
    "GET /metrics": Operation(
        "Counters and gauges. Outside development, with METRICS_TOKEN as bearer.",
        {200: Answer("In the words of Prometheus.", media_type="text/plain")},
        (*ANYBODYS, errors.Unauthorized, errors.NotFound),
        public=True,
    ),
    "GET /api/diagnostics/stream": Operation(
        "Ten timed ticks: does something on the way hold events up?",
        {200: Answer("The ticks.", events={"message": (events.Tick,)})},
        (*ANYBODYS, errors.Forbidden, errors.TooManyRequests, errors.ServerFull),
        public=True,
    ),
    "GET /openapi.json": Operation(
        "This document.", {200: Answer("OpenAPI 3.1.", answers.Passed)}, (*ANYBODYS, errors.InvalidRequest), public=True
    ),
    "GET /": Operation("The chat page.", {200: Answer("A page.", media_type="text/html")}, ANYBODYS, public=True),
}
