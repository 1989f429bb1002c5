"""What doors to the engine have in common: a place while they wait, and a wait that ends when the browser leaves."""

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
    who: Identity
    slot: Slot
    waiter: Waiter
    """Ends when the browser leaves, or when the process must."""


@contextmanager
def open_engine_request() -> Iterator[EngineRequest]:
    """Raises Unauthorized, Forbidden, ServerRestarting, ServerFull, TooManyRequests. The slot is the caller's to release."""
    who = hooks.identity()
    with services.parts().streams.acquire(hooks.large_response_key(who)) as slot:
        waiter = waiting.new_waiter(waiting.client_socket(request.environ), allow_half_open=False)
        try:
            slot.attach(waiter)
            yield EngineRequest(who, slot, waiter)
        finally:
            waiter.close()


@contextmanager
def engine_request() -> Iterator[EngineRequest]:
    """As long as the request lasts, and its response."""
    with open_engine_request() as asked:
        hooks.hold(asked.slot)
        yield asked
