"""Settings of the garbage collector and of the C library's allocator."""

import contextlib
import ctypes
import gc
import threading
from collections.abc import Callable
from typing import Final

THRESHOLDS: Final = (5_000, 5, 500)
"""Of the garbage collector's three generations; figures in benchmarks/README.md. A full collection stops the process for
230 ms while 2,000 streams are open, and finds less than one object per stream that has ended: streams are freed by reference
counting. So it must not come with every few hundred streams, as by the third default, 10, and it must not be postponed
forever: 500 means one for each 160,000 streams that come and go, which leave at most 10 MiB."""
QUIET_STREAMS: Final = 100
"""Open streams, up to which a full collection takes no longer than 30 ms."""
QUIET_SECONDS: Final = 60.0
"""Between two checks whether the process is quiet."""

LARGE_BLOCK_BYTES: Final = 1024 * 1024
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def tune_garbage_collector() -> None:
    """Exempts all existing objects from collection and sets THRESHOLDS. To be called once the app is built."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


class QuietCollector:
    """Runs a full collection every QUIET_SECONDS if few streams are open and younger generations were collected since."""

    def __init__(self, open_streams: Callable[[], int]) -> None:
        self._open_streams = open_streams
        self._closed = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="collector", daemon=True).start()

    def close(self) -> None:
        """For tests; a process never closes it."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(QUIET_SECONDS):
            if self._open_streams() <= QUIET_STREAMS and gc.get_count()[1:] != (0, 0):
                gc.collect()


def unmap_large_blocks() -> None:
    """Makes glibc return each block of LARGE_BLOCK_BYTES or more to the system when it is freed; elsewhere does nothing.

    By default glibc raises this limit to the largest block that was ever freed, up to 32 MiB. Blocks below it come from the
    heap, which only shrinks from its end: 12 stopped voice messages of 15 MB left 140 MiB behind.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * LARGE_BLOCK_BYTES)  # The ratio glibc keeps by default.
