"""What this process's memory is given back by: the garbage collector, and the C library's allocator."""

import contextlib
import ctypes
import gc
import threading
from collections.abc import Callable
from typing import Final

THRESHOLDS: Final = (5_000, 5, 1_000)
"""Of the garbage collector's three generations. Each stream that opens is some 150 objects, so that the usual (700, 10, 10)
has a full collection come with every few hundred. That stops everybody for 0.1 to 0.3 ms a stream that is open, and finds
next to nothing: what streams leave is freed by reference counting. The third threshold bounds what is left in a process
that is never quiet: a full collection after some 140,000 streams, which leave 2 to 3 MiB."""
QUIET_STREAMS: Final = 100
"""Open ones, up to which a full collection stops nobody for longer than some 10 ms."""
QUIET_SECONDS: Final = 60.0
"""Between two looks."""

LARGE_BLOCK_BYTES: Final = 1024 * 1024
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def spare_streams_the_collector() -> None:
    """For a process in which the app has just been built. What there is now is no garbage, and is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


class QuietCollector:
    """A full collection every QUIET_SECONDS, while few streams are open and something has been left to be looked at."""

    def __init__(self, open_streams: Callable[[], int]) -> None:
        self._open_streams = open_streams
        self._closed = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="collector", daemon=True).start()

    def close(self) -> None:
        """For tests, which make many: a process needs it to the end."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(QUIET_SECONDS):
            if self._open_streams() <= QUIET_STREAMS and gc.get_count()[1:] != (0, 0):
                gc.collect()


def unmap_large_blocks() -> None:
    """Has every block of LARGE_BLOCK_BYTES or more given back to the system when it is freed. glibc only; else does nothing.

    glibc raises its own limit to the largest block that was ever freed, up to 32 MiB. From then on blocks of that size come
    from the heap, which shrinks only from its end: 12 voice messages of 15 MB that were stopped left 140 MiB.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * LARGE_BLOCK_BYTES)  # In its own proportion.
