"""/api/diagnostics/stream: ten timed ticks, whose arrival times show whether something on the way buffers streams."""

import json
from collections.abc import Iterator
from time import monotonic, time
from typing import Final

from flask import Blueprint, Response, request

from bff.api import hooks, services
from bff.api.openapi import LIMIT_ERRORS, PUBLIC_ERRORS, ResponseSpec, describe
from bff.api.openapi.events import Tick
from bff.errors import Forbidden
from bff.http.responses import EventStream, StreamOptions
from bff.http.sse import Event, comment
from bff.http.waiting import Waiter

bp = Blueprint("diagnostics", __name__, url_prefix="/api/diagnostics")
hooks.add_hooks(bp)

TICKS: Final = 10
TICK_SECONDS: Final = 0.2
SHARED_USER: Final = "\0diagnostics"
"""The user id for the limit of streams: an operator need not be a user, so all of these streams share one."""


@bp.get("/stream")
@describe(
    "Stream ten timed ticks, to detect proxies that buffer.",
    {200: ResponseSpec("The ticks.", events={"message": (Tick,)})},
    (*PUBLIC_ERRORS, *LIMIT_ERRORS, Forbidden),
    public=True,
)
def stream() -> Response:
    """Raises ServerFull, TooManyRequests."""
    with services.parts().streams.acquire(SHARED_USER, resumable=True) as slot:
        options = StreamOptions(comment("keepalive"), services.parts().settings.heartbeat_seconds)
        return EventStream(_ticks, options, environ=request.environ, slot=slot)


def _ticks(waiter: Waiter) -> Iterator[Event | None]:
    started_at = monotonic()
    for number in range(1, TICKS + 1):
        tick_at = started_at + (number - 1) * TICK_SECONDS
        while monotonic() < tick_at:
            waiter.wait(deadline=tick_at)
        yield _tick(number, monotonic() - started_at)
        yield None


def _tick(number: int, elapsed: float) -> Event:
    content = {
        "type": "tick",
        "number": number,
        "of": TICKS,
        "sent_ms": round(time() * 1000),
        "elapsed_ms": round(elapsed * 1000),
    }
    return Event("", json.dumps(content, separators=(",", ":")))
