"""What doors to the engine have in common: a place while they wait, and a wait that ends when the browser leaves."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from flask import request

from bff.identity import Identity
from bff.ops import hub
from bff.ops.hub import Watch
from bff.ops.streams import Slot
from bff.routes import door


class Asking(NamedTuple):
    who: Identity
    slot: Slot
    watch: Watch
    """Ends when the browser leaves, or when the process must."""


@contextmanager
def asking() -> Iterator[Asking]:
    """Raises Unauthorized, Forbidden, ServerRestarting, ServerFull, TooManyRequests. The slot is the caller's to release."""
    who = door.identity()
    # Counted apart from the user's streams, as no user id holds a NUL: players that are paused must not keep it from chatting.
    with door.parts().streams.enter(f"{who.user_id}\0") as slot:
        watch = hub.watch(hub.browser(request.environ), half_open=False)
        try:
            slot.wait_at(watch)
            yield Asking(who, slot, watch)
        finally:
            watch.close()


@contextmanager
def asking_once() -> Iterator[Asking]:
    """As long as the request lasts."""
    with asking() as asked:
        try:
            yield asked
        finally:
            asked.slot.release()
