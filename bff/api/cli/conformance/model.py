"""A check, how it is registered, and what comes of it."""

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from bff.api.cli.conformance.target import Target

Status = Literal["passed", "failed", "skipped"]
RunCheck = Callable[[Target], str | None]
"""Returns a remark for the report, if there is one. Raises Failed, Skipped or a ClientError, which is a failure as well."""


class Check(NamedTuple):
    id: str
    title: str
    rule: str
    """Where it is written: `docs/protocol.md#<section>`, or a section of a standard."""
    meaning: str
    """What a failure means for users."""
    run: RunCheck

    @property
    def topic(self) -> str:
        return self.id.partition(".")[0]


class Result(NamedTuple):
    check: Check
    status: Status
    detail: str
    """What was seen, why it was skipped, or a remark."""
    seconds: float


CHECKS: Final[dict[str, Check]] = {}
"""All checks by id, in the order of the report."""


def check(check_id: str, title: str, *, rule: str, meaning: str) -> Callable[[RunCheck], RunCheck]:
    """Registers the decorated function as a check."""

    def register(run: RunCheck) -> RunCheck:
        if check_id in CHECKS:
            raise ValueError(f"there are two checks {check_id}")
        CHECKS[check_id] = Check(check_id, title, rule, meaning, run)
        return run

    return register
