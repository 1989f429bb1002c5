"""What `--chaos` makes of the events that readers have received."""

from typing import Any

import pytest

from bff.api.cli.conformance.chaos import TOPIC
from bff.api.cli.conformance.chaos.readers import Reader
from bff.api.cli.conformance.chaos.verdicts import VERDICTS, Record, ReplyRecord
from bff.api.cli.conformance.checks import ALL
from bff.api.cli.conformance.outcomes import Failed
from bff.api.cli.conformance.sse import Event, Frame
from bff.api.cli.conformance.target import Options, Target

TARGET = Target("http://localhost", Options())
PIECES = [{"type": "progress", "text": "one "}, {"type": "progress", "text": "two"}]
COMPLETE = {"type": "complete", "response": {"responses": ["one two"]}}
INTERRUPTED = {"type": "error", "code": "interrupted", "error": "No.", "request_id": "1"}
WHOLE = [*PIECES, COMPLETE]
RESTART = {"type": "restart"}


def events(contents: list[dict[str, Any]], first: int = 1) -> list[Event]:
    return [Event(str(content["type"]), str(first + n), content, Frame(b"", 0.0)) for n, content in enumerate(contents)]


def reader(contents: list[dict[str, Any]], refusal: int = 0, interruptions: int = 1) -> Reader:
    reader = Reader(TARGET, None, 0.0, "m")
    reader.events = events(contents)
    reader.refusal, reader.interruptions = refusal, interruptions
    return reader


def record(*readers: Reader, log: list[dict[str, Any]] | None = None, commands: tuple[str, ...] = ("",)) -> Record:
    """Of one reply."""
    record = Record()
    reply = ReplyRecord(None, "one two", [*readers])
    reply.log = None if log is None else events(log)
    record.replies.append(reply)
    record.commands = [*commands]
    return record


def with_ids(found: Reader, *ids: str) -> Reader:
    found.events = [event._replace(id=event_id) for event, event_id in zip(found.events, ids, strict=True)]
    return found


GOOD = {
    "complete": record(reader(WHOLE), reader(WHOLE), log=WHOLE),
    "restarted": record(
        reader([PIECES[0], RESTART, *WHOLE]), reader([PIECES[0], RESTART, *WHOLE]), log=[PIECES[0], RESTART, *WHOLE]
    ),
    "joined after a restart": record(
        with_ids(reader(WHOLE), "3", "4", "5"), reader([PIECES[0], RESTART, *WHOLE]), log=[PIECES[0], RESTART, *WHOLE]
    ),
    "interrupted": record(reader([PIECES[0], INTERRUPTED]), reader([PIECES[0], INTERRUPTED | {"request_id": "2"}])),
}
BAD = {
    "chaos.restarted": {
        "no command": record(reader(WHOLE), commands=()),
        "a failed command": record(reader(WHOLE), commands=("", "the command ended with status 1")),
        "no interruption": record(reader(WHOLE, interruptions=0)),
    },
    "chaos.accepted": {
        "404": record(reader([PIECES[0]], refusal=404)),
        "410": record(reader(WHOLE), reader([], refusal=410)),
    },
    "chaos.finished": {"no end": record(reader(WHOLE), reader(PIECES)), "nothing": record(reader([]))},
    "chaos.one-end": {
        "two": record(reader([*WHOLE, COMPLETE])),
        "an event after it": record(reader([*WHOLE, PIECES[0]])),
    },
    "chaos.exact": {
        "lost": record(reader([PIECES[1], COMPLETE]), log=WHOLE),
        "lost, as seen by another reader": record(reader(WHOLE), reader([PIECES[1], COMPLETE])),
        "repeated": record(with_ids(reader([PIECES[0], *WHOLE]), "1", "1", "2", "3"), log=WHOLE),
        "repeated under a new id": record(reader(WHOLE), reader([PIECES[0], *WHOLE])),
        "reordered": record(reader([PIECES[1], PIECES[0], COMPLETE]), log=[PIECES[1], PIECES[0], COMPLETE][::-1]),
        "another log": record(reader(WHOLE), log=[PIECES[0], {"type": "status", "message": "Hm."}, PIECES[1], COMPLETE]),
    },
    "chaos.same-end": {
        "two readers": record(reader(WHOLE), reader([*PIECES, INTERRUPTED])),
        "a later reader": record(reader(WHOLE), log=[*PIECES, INTERRUPTED]),
    },
    "chaos.ends": {
        "another error": record(reader([PIECES[0], INTERRUPTED | {"code": "upstream_unavailable"}])),
        "stopped": record(reader([*PIECES, COMPLETE | {"type": "stopped"}])),
    },
}


@pytest.mark.parametrize("check_id", VERDICTS)
@pytest.mark.parametrize("name", GOOD)
def test_a_good_run_passes(check_id, name):
    VERDICTS[check_id](GOOD[name])


@pytest.mark.parametrize(("check_id", "name"), [(check_id, name) for check_id, bad in BAD.items() for name in bad])
def test_a_bad_run_fails_in_its_check(check_id, name):
    with pytest.raises(Failed):
        VERDICTS[check_id](BAD[check_id][name])


def test_every_check_of_chaos_can_fail():
    assert BAD.keys() == VERDICTS.keys() == {check.id for check in ALL.values() if check.topic == TOPIC}
