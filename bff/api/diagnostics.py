"""/api/diagnostics/stream: ten timed ticks, by whose arrival one sees whether something on the way holds streams back."""

import json
from collections.abc import Iterator
from time import monotonic, time
from typing import Final

from flask import Blueprint, Response, request

from bff.api import services
from bff.http.responses import EventStream, StreamOptions
from bff.http.sse import Event, comment
from bff.http.waiting import Waiter

bp = Blueprint("diagnostics", __name__, url_prefix="/api/diagnostics")

TICKS: Final = 10
TICK_SECONDS: Final = 0.2
VISITORS: Final = "\0diagnostics"
"""Whom their streams are counted for: who looks after a server need be no user, and all of them together are one."""


@bp.get("/stream")
def stream() -> Response:
    """Raises ServerFull, TooManyRequests."""
    with services.parts().streams.acquire(VISITORS, comes_back=True) as slot:
        settings = services.parts().settings
        how = StreamOptions(comment("keepalive"), settings.heartbeat_seconds)
        return EventStream(_ticks, how, environ=request.environ, slot=slot)


def _ticks(waiter: Waiter) -> Iterator[Event | None]:
    began = monotonic()
    for number in range(1, TICKS + 1):
        due = began + (number - 1) * TICK_SECONDS
        while monotonic() < due:
            waiter.wait(deadline=due)
        said = {"type": "tick", "number": number, "of": TICKS, "sent_ms": round(time() * 1000)}
        yield Event("", json.dumps(said | {"elapsed_ms": round((monotonic() - began) * 1000)}, separators=(",", ":")))
        yield None
