"""Requests to a wire server, and helpers to read the response."""

from contextlib import closing
from time import monotonic

from bff.http import waiting
from bff.http.sse import Event
from bff.upstream import http
from bff.upstream.http import EventSource, new_session

KEY = "the-key-that-must-not-leave"
DATA = b"data: hello\n\n" * 1000


def fetch(url, session=None, method="GET", seconds=5.0, **options):
    session = session or new_session()
    deadline = monotonic() + seconds
    return http.send(session, method, url, headers={"X-API-Key": KEY}, connect=1.0, deadline=deadline, **options)


def read(source: EventSource, waiter: waiting.Waiter | None = None) -> bytes:
    waiter = waiter or waiting.new_waiter()
    try:
        return b"".join(source.chunks(waiter))
    finally:
        source.close()
        waiter.close()


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def first_event(source: EventSource) -> Event | None:
    with closing(waiting.new_waiter()) as waiter:
        waiter.wake_at = monotonic() + 5
        return next((event for event in source.events(waiter) if event is not None or monotonic() >= waiter.wake_at), None)
