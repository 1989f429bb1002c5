"""Requests to the engine on behalf of a browser: limited per user, and cancelled when the browser disconnects."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from flask import request

from bff.api import hooks, services
from bff.auth.identity import Identity
from bff.http import waiting
from bff.http.streams import Slot
from bff.http.waiting import Waiter


class EngineRequest(NamedTuple):
    identity: Identity
    slot: Slot
    waiter: Waiter
    """Cancelled when the browser disconnects or the process has to stop."""


@contextmanager
def open_engine_request() -> Iterator[EngineRequest]:
    """Raises Unauthorized, Forbidden, ServerRestarting, ServerFull, TooManyRequests. The caller releases the slot."""
    identity = hooks.identity()
    with services.parts().streams.acquire(hooks.large_response_key(identity)) as slot:
        waiter = waiting.new_waiter(waiting.client_socket(request.environ), allow_half_open=False)
        try:
            slot.attach(waiter)
            yield EngineRequest(identity, slot, waiter)
        finally:
            waiter.close()


@contextmanager
def engine_request() -> Iterator[EngineRequest]:
    """Like `open_engine_request`, but the slot is released with the response."""
    with open_engine_request() as opened:
        hooks.release_with_response(opened.slot)
        yield opened
