"""Whether what we need is there: asked at most every two seconds, however often we are asked."""

import logging
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final

from bff.errors import ChatError, InternalError, UpstreamTimeout

KEPT_SECONDS: Final = 2.0
PROBE_SECONDS: Final = 3.0
"""For all of them, which are asked at once. One that takes longer is not there, and not waited for."""

WRITE_SECONDS: Final = 15.0
"""Between two writes of one probe: each costs a disk or a replica something."""

log = logging.getLogger(__name__)

Probe = Callable[[], None]
"""Raises a ChatError, whose code is what there is to say, when what it looks at is not there."""


class WriteProbe:
    """Of a store that may be there and take no writes: read-only, full, or a replica.

    It reads every time and writes rarely; a write that failed is tried again every time.
    """

    def __init__(self, read: Probe, write: Probe) -> None:
        self._read = read
        self._write = write
        self._written_at = float("-inf")

    def __call__(self) -> None:
        self._read()
        if monotonic() >= self._written_at + WRITE_SECONDS:
            self._write()
            self._written_at = monotonic()


class Health:
    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self.probes = probes
        self._asking = threading.Lock()
        self._asked_at = float("-inf")
        self._states: dict[str, str] = {}

    def states(self) -> dict[str, str]:
        """By name: "ok", or the code of what is wrong. Whoever comes while somebody asks gets the last answer."""
        if monotonic() >= self._asked_at + KEPT_SECONDS and self._asking.acquire(blocking=not self._states):
            try:
                if monotonic() >= self._asked_at + KEPT_SECONDS:
                    self._states = _states(self.probes)
                    self._asked_at = monotonic()
            finally:
                self._asking.release()
        return self._states


def _states(probes: Mapping[str, Probe]) -> dict[str, str]:
    found: dict[str, str] = {}
    threads = [threading.Thread(target=_find, args=(found, *named), daemon=True) for named in probes.items()]
    for thread in threads:
        thread.start()
    deadline = monotonic() + PROBE_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
    return {name: found.get(name, UpstreamTimeout.code) for name in probes}


def _find(found: dict[str, str], name: str, probe: Probe) -> None:
    found[name] = _state(probe)


def _state(probe: Probe) -> str:
    try:
        probe()
    except ChatError as problem:
        return problem.code
    except Exception:
        log.exception("a probe broke")
        return InternalError.code
    return "ok"
