"""A message that is sent again."""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

from bff.api.cli.conformance.checks.errors import expect_error
from bff.api.cli.conformance.checks.framing import EVENTS
from bff.api.cli.conformance.checks.resuming import expect_same_events
from bff.api.cli.conformance.model import check
from bff.api.cli.conformance.outcomes import expect
from bff.api.cli.conformance.sse import EventStream
from bff.api.cli.conformance.target import CHAT, JSON, Target

SENDING: Final = "docs/protocol.md#sending-a-message"
TWICE: Final = "A repeat after a lost connection is answered, stored and paid for twice."


@check("idempotency.same", "A repeat with the same Idempotency-Key follows the same message", rule=SENDING, meaning=TWICE)
def same(target: Target) -> str | None:
    user, headers = target.user(), {"Idempotency-Key": target.key()}
    streams: list[EventStream] = []
    for _ in range(2):
        with user.send("once", headers) as stream:
            streams.append(stream.read_all(target.deadline()))
    _expect_same_message({stream.message_id for stream in streams}, "two requests")
    expect_same_events(streams[1].logged, streams[0].logged, "the repeat")
    return None


@check("idempotency.field", "client_message_id is the same key as the header", rule=SENDING, meaning=TWICE)
def field(target: Target) -> str | None:
    user, key = target.user(), target.key()
    with user.send("once", client_message_id=key) as first, user.send("once", {"Idempotency-Key": key}) as second:
        _expect_same_message({first.message_id, second.message_id}, "the field and the header")
    return None


@check("idempotency.at-once", "Repeats that arrive at the same time make one message", rule=SENDING, meaning=TWICE)
def at_once(target: Target) -> str | None:
    user, headers = target.user(), {"Idempotency-Key": target.key()}

    def send(_: int) -> str:
        with user.send("at once", headers) as stream:
            return stream.read_all(target.deadline()).message_id

    with ThreadPoolExecutor(4) as pool:
        message_ids = set(pool.map(send, range(4)))
    _expect_same_message(message_ids, "4 requests")
    return None


def _expect_same_message(message_ids: set[str], requests: str) -> None:
    expect("" not in message_ids, "a stream has no X-Message-ID, which would name its message: see headers.message-id")
    expect(len(message_ids) == 1, f"{requests} with one key made {len(message_ids)} messages")


@check(
    "idempotency.changed",
    "The same key with another message is refused with 422",
    rule="docs/protocol.md#errors",
    meaning="A client's bug shows the reply to another message.",
)
def changed(target: Target) -> str | None:
    user, headers = target.user(), {"Idempotency-Key": target.key()}
    user.send("first", headers).close()
    with user.request("POST", CHAT, b'{"message": "changed"}', {**JSON, **headers}) as response:
        expect_error(target, response, 422, "idempotency_conflict")
    return None


@check(
    "idempotency.users",
    "The same key of another user is another message",
    rule=EVENTS,
    meaning="A user receives another user's reply.",
)
def users(target: Target) -> str | None:
    one, other, headers = target.user(), target.other_user(), {"Idempotency-Key": target.key()}
    with one.send("mine", headers) as first, other.send("mine", headers) as second:
        expect(first.message_id and second.message_id, "the streams have no X-Message-ID: see headers.message-id")
        expect(first.message_id != second.message_id, "two users got the same message")
    return None
