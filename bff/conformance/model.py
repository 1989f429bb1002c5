"""A check, how it is registered, and what comes of it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from bff.conformance.target import Target

Status = Literal["passed", "failed", "skipped"]
RunCheck = Callable[["Target"], str | None]
"""Returns a remark for the report, if there is one. Raises Failed, Skipped or a ClientError, which is a failure as well."""


class Failed(Exception):
    """The server broke the rule; the text says what was seen."""


class Skipped(Exception):
    """The check cannot be made with this server; the text says why."""


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


def expect(condition: object, message: str) -> None:
    """Raises Failed with `message` unless the condition holds."""
    if not condition:
        raise Failed(message)
