"""Limits on what one user may do at once."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from bff.api.cli.conformance.checks.errors import ERRORS, expect_error
from bff.api.cli.conformance.checks.stopping import slow_reply, stop
from bff.api.cli.conformance.client import Response
from bff.api.cli.conformance.model import check
from bff.api.cli.conformance.outcomes import Skipped, expect
from bff.api.cli.conformance.target import CHAT, Target, User

MAX_STREAMS: Final = 64
"""More are not tried: without a lower limit a check would be a load test."""


@contextmanager
def _at_limit(target: Target) -> Iterator[tuple[User, Response, str]]:
    """Opens streams of one reply until one is refused; yields that response. Raises Skipped if none is."""
    user = target.user()
    with ExitStack() as stack:
        first = stack.enter_context(slow_reply(target, user))
        stack.callback(lambda: stop(user, first.message_id))
        path = f"{CHAT}/{first.message_id}"
        for _ in range(MAX_STREAMS):
            response = stack.enter_context(user.request("GET", path))
            if response.status != 200:
                yield user, response, path
                return
        raise Skipped(f"{MAX_STREAMS} streams of one user were accepted")


@check(
    "limits.streams",
    "Streams over the user's limit are 429 with Retry-After",
    rule=ERRORS,
    meaning="One user can take up all connections, or clients repeat refused requests without a pause.",
)
def streams(target: Target) -> str | None:
    with _at_limit(target) as (_, response, _path):
        expect_error(target, response, 429, "too_many_requests")
        after = response.header("retry-after")
    expect(after.isdecimal() and int(after) >= 1, f"Retry-After is {after or 'missing'}")
    return None


@check(
    "limits.event-source",
    "An EventSource over the limit gets 200 with retry and the end, so that it comes back",
    rule="docs/protocol.md#events",
    meaning="EventSource gives up for good on any status but 200: the tab shows nothing until it is loaded again.",
)
def event_source(target: Target) -> str | None:
    with _at_limit(target) as (user, _, path), user.request("GET", path, headers={"Accept": "text/event-stream"}) as response:
        expect(response.status == 200, f"the status is {response.status}")
        body = response.read_all(target.deadline())
    expect(body.startswith(b"retry: "), f"the stream begins with {body[:40]!r}")
    return None
