"""What must be true of a run with restarts."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from bff.api.cli.conformance.chaos.readers import GONE, Reader
from bff.api.cli.conformance.model import check
from bff.api.cli.conformance.outcomes import Skipped, expect
from bff.api.cli.conformance.sse import TERMINAL, Event, since_restart
from bff.api.cli.conformance.target import Target, User

TOPIC: Final = "chaos"
RESTARTED: Final = "docs/protocol.md#restarted-replies"
EVENTS: Final = "docs/protocol.md#events"
CODE_ALLOWED: Final = "interrupted"


class ReplyRecord:
    def __init__(self, user: User, text: str, readers: list[Reader]) -> None:
        """`text`: of the reply, if the agent repeats messages."""
        self.user = user
        self.text = text
        self.readers = readers
        self.log: list[Event] | None = None
        """The reply's events as read afterwards; None if it cannot be read."""

    @property
    def name(self) -> str:
        return self.readers[0].message_id or "a message that was never accepted"


class Record:
    """Filled by several threads, which only append."""

    def __init__(self) -> None:
        self.replies: list[ReplyRecord] = []
        self.commands: list[str] = []
        """Of each restart, what went wrong, "" for nothing."""

    @property
    def readers(self) -> Iterator[tuple[ReplyRecord, Reader]]:
        for reply in self.replies:
            for reader in reply.readers:
                yield reply, reader


Verdict = Callable[[Record], str | None]
VERDICTS: Final[dict[str, Verdict]] = {}


def verdict(check_id: str, title: str, *, rule: str, meaning: str) -> Callable[[Verdict], Verdict]:
    """Registers a check that `--chaos` makes, and what decides on it."""

    def register(decide: Verdict) -> Verdict:
        VERDICTS[check_id] = decide
        check(check_id, title, rule=rule, meaning=meaning)(_only_with_chaos)
        return decide

    return register


def _only_with_chaos(_: Target) -> str | None:
    raise Skipped("is made with --chaos only")


def _expect_none(problems: list[str], count: int) -> None:
    expect(not problems, f"{len(problems)} of {count}: {'; '.join(problems[:3])}")


@verdict(
    "chaos.restarted",
    "The command restarted the server, and streams were interrupted by it",
    rule=EVENTS,
    meaning="Nothing was tested: the command is wrong, or reaches another server.",
)
def restarted(record: Record) -> str | None:
    failures = [failure for failure in record.commands if failure]
    expect(record.commands, "the command was never run: the duration is too short")
    expect(not failures, failures[0] if failures else "")
    interruptions = sum(reader.interruptions for _, reader in record.readers)
    expect(interruptions, f"after {len(record.commands)} restarts no stream was interrupted")
    return f"{len(record.commands)} restarts, {len(record.replies)} replies, {interruptions} interruptions"


@verdict(
    "chaos.accepted",
    "A message that was accepted is known after a restart",
    rule=EVENTS,
    meaning="Each restart or deploy loses messages and replies. A server that keeps its queue in memory only fails here.",
)
def accepted(record: Record) -> str | None:
    lost = [f"{reply.name} is answered with {reader.refusal}" for reply, reader in record.readers if reader.refusal in GONE]
    _expect_none(lost, len(record.replies))
    return None


@verdict(
    "chaos.finished",
    "Every reader received the end of its reply",
    rule=EVENTS,
    meaning="The page shows a reply as running forever.",
)
def finished(record: Record) -> str | None:
    known = [(reply, reader) for reply, reader in record.readers if reader.refusal not in GONE]
    open_ = [f"{reply.name} has no end after {len(reader.events)} events" for reply, reader in known if reader.end is None]
    _expect_none(open_, len(known))
    return f"{len(known)} readers"


@verdict(
    "chaos.one-end",
    "No reader received two ends, or anything after the end",
    rule=EVENTS,
    meaning="The page replaces a complete reply by an error, or an error by a reply.",
)
def one_end(record: Record) -> str | None:
    problems = [f"{reply.name}: {problem}" for reply, reader in record.readers if (problem := _end_problem(reader))]
    _expect_none(problems, len(record.replies))
    return None


def _end_problem(reader: Reader) -> str:
    types = [event.type for event in reader.events]
    ends = [name for name in types if name in TERMINAL]
    if len(ends) > 1:
        return f"{len(ends)} ends: {', '.join(ends)}"
    return f"after {ends[0]} comes {types[-1]}" if ends and types[-1] not in TERMINAL else reader.problem


@verdict(
    "chaos.exact",
    "Nothing is lost, repeated or reordered",
    rule=RESTARTED,
    meaning="After a restart words are missing, or shown twice.",
)
def exact(record: Record) -> str | None:
    repeats = any(reader.end and _text(reader) == reply.text for reply, reader in record.readers)
    problems = [
        f"{reply.name}: {problem}" for reply, reader in record.readers if (problem := _difference(reply, reader, repeats))
    ]
    _expect_none(problems, len(record.replies))
    return f"{sum(len(reader.runs) - 1 for _, reader in record.readers)} restarts of replies were seen"


def _text(reader: Reader) -> str:
    return "".join(str(event.content.get("text", "")) for event in reader.runs[-1] if event.type == "progress")


def _difference(reply: ReplyRecord, reader: Reader, repeats: bool) -> str:
    """How what a reader received differs from what it should have received; "" for not at all."""
    for run in reader.runs:
        ids = [event.id for event in run if event.id]
        if twice := [event_id for event_id in ids if ids.count(event_id) > 1]:
            return f"event {twice[0]} came twice"
    if not reader.end or reader.end.type != "complete":
        return ""
    if repeats and _text(reader) != reply.text:
        return f"the text is {_text(reader)!r}, not {reply.text!r}"
    if reply.log is not None and _keys(reader.runs[-1]) != _keys(since_restart(reply.log)):
        return "its events differ from those of a reader who comes later"
    return ""


def _keys(events: list[Event]) -> list[tuple[str, str]]:
    return [event.key for event in events]


@verdict(
    "chaos.same-end",
    "All readers of a reply received the same end, now and later",
    rule=EVENTS,
    meaning="One tab shows an error and another one the reply.",
)
def same_end(record: Record) -> str | None:
    problems = []
    for reply in record.replies:
        ends = {reader.end.key[1] for reader in reply.readers if reader.end}
        ends |= {event.key[1] for event in (reply.log or [])[-1:]}
        if len(ends) > 1:
            problems.append(f"{reply.name}: {' and '.join(sorted(end[:80] for end in ends))}")
    _expect_none(problems, len(record.replies))
    return None


@verdict(
    "chaos.ends",
    "Replies end with complete, or with the error `interrupted`",
    rule="docs/protocol.md#errors",
    meaning="`interrupted` tells a user that the reply's process died, and that the message can be sent again.",
)
def ends(record: Record) -> str | None:
    counts = Counter(_end_name(reader.end.content) for _, reader in record.readers if reader.end)
    others = {name: number for name, number in counts.items() if name not in {"complete", CODE_ALLOWED}}
    expect(not others, f"other ends: {others}")
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items())) or None


def _end_name(content: dict[str, Any]) -> str:
    return str(content.get("code") or content.get("type"))
