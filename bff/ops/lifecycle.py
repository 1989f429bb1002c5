"""What a server calls at the start and the end of the apps in its process."""

import threading
from collections.abc import Callable
from math import inf
from typing import Final
from weakref import WeakSet


class Lifecycle:
    def __init__(self, start: Callable[[], None], drain: Callable[[], None], open_streams: Callable[[], int]) -> None:
        """`start` starts background threads.

        `drain` blocks up to DRAIN_SECONDS: it ends the streams and hands running replies over to other processes.
        """
        self.start = start
        self.drain = drain
        self.open_streams = open_streams


_registered: Final[WeakSet[Lifecycle]] = WeakSet()


def register(lifecycle: Lifecycle) -> Lifecycle:
    """To be started and drained by the process's server, which cannot find an app inside another one or inside middleware."""
    _registered.add(lifecycle)
    return lifecycle


def registered() -> list[Lifecycle]:
    return list(_registered)


def drain(lifecycles: list[Lifecycle]) -> None:
    """Drains all at the same time. Returns when the last one is drained."""
    run_concurrently(inf, *(lambda _, each=each: each.drain() for each in lifecycles))


def run_concurrently(seconds: float, *drains: Callable[[float], None]) -> None:
    """Calls all `drains` with `seconds`, their time limit. Returns when the last one has returned."""
    threads = [threading.Thread(target=drain, args=(seconds,), daemon=True) for drain in drains]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
