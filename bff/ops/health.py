"""Health checks of the services and stores that the process depends on. Results are cached for two seconds."""

import logging
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final, NamedTuple

from bff.errors import ChatError, InternalError, UpstreamTimeout

CACHE_SECONDS: Final = 2.0
PROBE_TIMEOUT_SECONDS: Final = 3.0
"""For all probes, which run concurrently. A slower one counts as failed and is not waited for."""

WRITE_INTERVAL_SECONDS: Final = 15.0
"""Minimum interval between two successful writes of a probe: each costs disk I/O and replication."""

log = logging.getLogger(__name__)

Probe = Callable[[], None]
"""Raises a ChatError, whose code is reported, if the dependency is unhealthy."""


class WriteProbe:
    """Probes a store that may be readable but not writable: read-only, full, or a replica.

    It reads in every call and writes at most every WRITE_INTERVAL_SECONDS; a failed write is repeated in the next call.
    """

    def __init__(self, read: Probe, write: Probe) -> None:
        self._read = read
        self._write = write
        self._written_at = float("-inf")

    def __call__(self) -> None:
        self._read()
        if monotonic() >= self._written_at + WRITE_INTERVAL_SECONDS:
            self._write()
            self._written_at = monotonic()


class ProbeResult(NamedTuple):
    state: str
    """ok, or an error code."""
    detail: str = ""


class Health:
    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self.probes = probes
        self._lock = threading.Lock()
        self._checked_at = float("-inf")
        self._states: dict[str, str] = {}
        self._details: dict[str, str] = {}

    def states(self) -> dict[str, str]:
        """By probe name: "ok" or an error code. While another thread runs the probes, returns the previous result."""
        if monotonic() >= self._checked_at + CACHE_SECONDS and self._lock.acquire(blocking=not self._states):
            try:
                if monotonic() >= self._checked_at + CACHE_SECONDS:
                    results = _run_probes(self.probes)
                    self._states = {name: result.state for name, result in results.items()}
                    self._log_changes(results)
                    self._checked_at = monotonic()
            finally:
                self._lock.release()
        return self._states

    def _log_changes(self, results: Mapping[str, ProbeResult]) -> None:
        """`/readyz` is public and has codes only; the reasons are in the log, once."""
        for name, (state, detail) in results.items():
            reason = "" if state == "ok" else detail or state
            if reason != self._details.get(name, ""):
                log.warning("the %s is not ready: %s", name, reason) if reason else log.info("the %s is ready again", name)
            self._details[name] = reason


def _run_probes(probes: Mapping[str, Probe]) -> dict[str, ProbeResult]:
    results: dict[str, ProbeResult] = {}
    threads = [threading.Thread(target=_store_result, args=(results, *item), daemon=True) for item in probes.items()]
    for thread in threads:
        thread.start()
    deadline = monotonic() + PROBE_TIMEOUT_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
    return {name: results.get(name, _TIMEOUT) for name in probes}


_TIMEOUT: Final = ProbeResult(UpstreamTimeout.code)


def _store_result(results: dict[str, ProbeResult], name: str, probe: Probe) -> None:
    results[name] = _result(probe)


def _result(probe: Probe) -> ProbeResult:
    try:
        probe()
    except ChatError as error:
        return ProbeResult(error.code, error.detail)
    except Exception:
        log.exception("a health probe raised an unexpected error")
        return ProbeResult(InternalError.code)
    return ProbeResult("ok")
