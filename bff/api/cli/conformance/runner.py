"""Runs checks, at the same time where they have users of their own, as most of them only wait."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Final

from bff.api.cli.conformance.client import ClientError
from bff.api.cli.conformance.model import Check, Result, Status
from bff.api.cli.conformance.outcomes import Failed, Skipped
from bff.api.cli.conformance.target import Target

AT_ONCE: Final = 12
LONGEST_FIRST: Final = ("heartbeat.silence", "stream.opens")
"""`heartbeat.silence` waits longest, and most others wait for the reply of `stream.opens`."""


def run_checks(target: Target, checks: Iterable[Check], on_result: Callable[[Result], None] = lambda _: None) -> list[Result]:
    """In the order of `checks`. Raises Unusable if the server cannot be judged."""
    target.prepare()
    chosen = list(checks)
    order = sorted(chosen, key=lambda check: check.id not in LONGEST_FIRST)
    with ThreadPoolExecutor(AT_ONCE if target.has_distinct_users else 1) as pool:
        running = {check.id: pool.submit(run_check, target, check) for check in order}
        results = []
        for check in chosen:
            results.append(running[check.id].result())
            on_result(results[-1])
    return results


def run_check(target: Target, check: Check) -> Result:
    return judge(check, lambda: check.run(target))


def judge(check: Check, decide: Callable[[], str | None]) -> Result:
    """`decide`: returns and raises as a check does."""
    began = monotonic()
    status, detail = _outcome(decide)
    return Result(check, status, detail, monotonic() - began)


def _outcome(decide: Callable[[], str | None]) -> tuple[Status, str]:
    try:
        return "passed", decide() or ""
    except Skipped as skipped:
        return "skipped", str(skipped)
    except (Failed, ClientError) as failure:
        return "failed", str(failure)
    except Exception as error:  # noqa: BLE001 - a surprising response must not end the run
        return "failed", f"the check could not be finished: {error!r}"
