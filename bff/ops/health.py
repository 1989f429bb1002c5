"""Whether what we need is there: asked at most every two seconds, however often we are asked."""

import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final

from bff.errors import ChatError

KEPT_SECONDS: Final = 2.0

Probe = Callable[[], None]
"""Raises a ChatError, whose code is what there is to say, when what it looks at is not there."""


class Health:
    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self._probes = probes
        self._asking = threading.Lock()
        self._asked_at = float("-inf")
        self._states: dict[str, str] = {}

    def states(self) -> dict[str, str]:
        """By name: "ok", or the code of what is wrong. Whoever comes while somebody asks gets the last answer."""
        if monotonic() >= self._asked_at + KEPT_SECONDS and self._asking.acquire(blocking=not self._states):
            try:
                if monotonic() >= self._asked_at + KEPT_SECONDS:
                    self._states = {name: _state(probe) for name, probe in self._probes.items()}
                    self._asked_at = monotonic()
            finally:
                self._asking.release()
        return self._states


def _state(probe: Probe) -> str:
    try:
        probe()
    except ChatError as problem:
        return problem.code
    return "ok"
