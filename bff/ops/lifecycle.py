"""What whoever runs an app does with it beside serving it: `app.extensions["chat_bff"].lifecycle`."""

import threading
from collections.abc import Callable
from typing import NamedTuple


class Lifecycle(NamedTuple):
    start: Callable[[], None]
    """Begins what works without being asked."""
    drain: Callable[[], None]
    """Ends the streams and hands over what is being answered, within DRAIN_SECONDS; returns after that."""
    open_streams: Callable[[], int]


def run_concurrently(seconds: float, *drains: Callable[[float], None]) -> None:
    """All at once, each in at most `seconds`."""
    threads = [threading.Thread(target=drain, args=(seconds,), daemon=True) for drain in drains]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
