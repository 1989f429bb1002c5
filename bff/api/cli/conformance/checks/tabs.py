"""Several readers of one reply at once."""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

from bff.api.cli.conformance.checks.framing import EVENTS
from bff.api.cli.conformance.checks.resuming import expect_same_events, frames_of
from bff.api.cli.conformance.model import check
from bff.api.cli.conformance.outcomes import expect
from bff.api.cli.conformance.sse import EventStream
from bff.api.cli.conformance.target import Target, User

TABS: Final = 4


@check(
    "tabs.same",
    "Several tabs that follow a running reply receive the same ids and bytes",
    rule=EVENTS,
    meaning="A second tab takes events away from the first one, or shows another text.",
)
def same(target: Target) -> str | None:
    user = target.user()
    with user.send(target.options.slow_message) as stream, ThreadPoolExecutor(TABS) as pool:
        tabs = [pool.submit(_read, target, user, stream.message_id) for _ in range(TABS)]
        stream.read_all(target.deadline())
        for number, tab in enumerate(tabs):
            expect_same_events(tab.result().logged, stream.logged, f"tab {number + 2}")
            expect(frames_of(tab.result().logged) == frames_of(stream.logged), f"tab {number + 2} received other bytes")
    return None


def _read(target: Target, user: User, message_id: str) -> EventStream:
    with user.follow(message_id) as stream:
        return stream.read_all(target.deadline())


@check(
    "tabs.leave",
    "A tab that closes does not disturb the others",
    rule=EVENTS,
    meaning="Closing one tab ends or delays the reply in another one.",
)
def leave(target: Target) -> str | None:
    user = target.user()
    with user.send(target.options.slow_message) as stream:
        with user.follow(stream.message_id) as tab:
            tab.read_events(2, target.deadline())
            tab.response.reset()
        stream.read_all(target.deadline())
    expect(stream.last and stream.last.type == "complete", f"it ends with {stream.last.type if stream.last else 'nothing'}")
    with user.follow(stream.message_id) as again:
        again.read_all(target.deadline())
    expect_same_events(stream.logged, again.logged, "the tab that stayed")
    return None
