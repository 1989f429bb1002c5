"""What a server calls at the start and the end of an app: `app.extensions["chat_bff"].lifecycle`."""

import threading
from collections.abc import Callable
from typing import NamedTuple


class Lifecycle(NamedTuple):
    start: Callable[[], None]
    """Starts background threads."""
    drain: Callable[[], None]
    """Blocks up to DRAIN_SECONDS: ends the streams and hands running replies over to other processes."""
    open_streams: Callable[[], int]


def run_concurrently(seconds: float, *drains: Callable[[float], None]) -> None:
    """Calls all `drains` with `seconds`, their time limit. Returns when the last one has returned."""
    threads = [threading.Thread(target=drain, args=(seconds,), daemon=True) for drain in drains]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
