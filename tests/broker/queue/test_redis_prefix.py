"""REDIS_PREFIX: whatever a deployment does, all its keys and channels begin with its prefix. Seen by MONITOR."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bff.broker.queue.base import LeaseLost, Limits
from bff.broker.queue.redis import RedisQueue
from bff.errors import ChatError
from bff.ops.redis import Client, connect
from bff.ops.redis_check import check_use
from bff.ops.redis_keys import Keys
from bff.ops.redis_limits import RedisLimits
from tests.broker.queue.queues import NO_WAIT, new_message
from tests.live import DEADLINE, eventually
from tests.redis_server import RedisServer

pytestmark = pytest.mark.servers

CHANNEL_COMMANDS = {"PUBLISH", "SPUBLISH", "SUBSCRIBE", "UNSUBSCRIBE", "SSUBSCRIBE", "SUNSUBSCRIBE"}
KEYLESS_COMMANDS = {"PING", "TIME", "CLIENT", "QUIT", "SELECT", "AUTH", "HELLO", "INFO", "MULTI", "EXEC"}


class Deployment:
    def __init__(self, url: str, prefix: str) -> None:
        self.client = connect(url)
        self.keys = Keys(prefix)
        self.queue = RedisQueue(self.client, Limits(depth_per_user=3, grace=0.01), prefix=prefix)
        self.limits = RedisLimits(self.client, streams=3, per_minute=5, prefix=prefix)
        self.claims: list = []
        self.messages: list = []

    def enqueue(self, number: int) -> None:
        message = new_message(f"user-{number % 3}", cancel_on_disconnect=number % 2 == 0, repeatable=number % 4 == 0)
        self.queue.enqueue(message, f"key-{number}", ("enqueue", "interrupt", "reject")[number % 3], claim=number == 5)
        self.messages.append(message)

    def claim(self, number: int) -> None:
        if claim := self.queue.claim(NO_WAIT):
            self.claims.append(claim)

    def write(self, number: int) -> None:
        if self.claims:
            claim = self.claims[number % len(self.claims)]
            self.queue.append(claim, [("message", "words")])
            self.queue.renew(claim)
            self.queue.commit(claim)
            self.queue.restart(claim)

    def end(self, number: int) -> None:
        if self.claims:
            claim = self.claims.pop(number % len(self.claims))
            end = (self.queue.finish, self.queue.conclude)[number % 2]
            self.queue.release(claim) if number % 3 == 0 else end(claim, [("message", "the end")])
            self.queue.claim_next(claim.message, "engine")

    def read(self, number: int) -> None:
        if self.messages:
            message = self.messages[number % len(self.messages)]
            with self.queue.subscribe(message.user_id, message.id, lambda: None):
                page = self.queue.read(message.user_id, message.id, "")
                self.queue.locate(message.user_id, "", page.events[-1].id if page.events else "1-1")
            self.queue.continue_without_readers(message.user_id, message.id)

    def stop(self, number: int) -> None:
        if self.messages:
            message = self.messages[number % len(self.messages)]
            self.queue.cancel_if_no_readers(message.user_id, message.id)
            self.queue.stop(message.user_id, message.id)

    def look(self, number: int) -> None:
        self.queue.sweep()
        self.queue.positions(f"user-{number % 3}")
        self.queue.counts()
        self.queue.waiting()
        self.queue.has_workers()
        self.queue.on_stop(lambda *_: None)
        check_use(self.client, self.keys)

    def limit(self, number: int) -> None:
        self.limits.acquire(f"user-{number % 3}")
        self.limits.release_stream("ann", self.limits.acquire_stream("ann"))

    def close(self) -> None:
        self.queue.close()


OPERATIONS = (
    Deployment.enqueue,
    Deployment.claim,
    Deployment.write,
    Deployment.end,
    Deployment.read,
    Deployment.stop,
    Deployment.look,
    Deployment.limit,
)
STEPS = st.lists(st.tuples(st.integers(0, 1), st.sampled_from(OPERATIONS), st.integers(0, 11)), min_size=5, max_size=30)


@contextmanager
def monitored(server: RedisServer) -> Iterator[list[str]]:
    """Yields the commands that the server has run, scripts' own ones too, as they come."""
    commands: list[str] = []
    ended = threading.Event()
    with connect(server.url) as client, connect(server.url) as other, client.monitor() as monitor:

        def listen() -> None:
            for entry in monitor.listen():
                commands.append(entry["command"])
                if entry["command"] == "GET the-end":
                    break
            ended.set()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield commands
        other.get("the-end")
        assert ended.wait(DEADLINE)
        commands.remove("GET the-end")
        thread.join(DEADLINE)


def names(client: Client, commands: list[str]) -> set[str]:
    """The keys and channels of the commands."""
    found: set[str] = set()
    for command in commands:
        if command.startswith("EVAL "):  # Its text has spaces; the commands that it runs are among these.
            continue
        name, *arguments = command.split(" ")
        if name.upper() in CHANNEL_COMMANDS:
            found |= {*arguments[:1]} if "PUBLISH" in name.upper() else {*arguments}
        elif name.upper() not in KEYLESS_COMMANDS:
            found |= {*client.command_getkeys(name, *arguments)}
    return found - {"the-end"}


@given(STEPS)
@settings(max_examples=12, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_two_deployments_have_no_key_and_no_channel_in_common(clean_redis, steps):
    with connect(clean_redis.url) as client:
        client.flushall()
        with monitored(clean_redis) as commands:
            deployments = [Deployment(clean_redis.url, prefix) for prefix in ("chat", "chat.2")]
            for number, operation, argument in steps:
                with suppress(ChatError, LeaseLost):
                    operation(deployments[number], argument)
            for deployment in deployments:
                deployment.close()
        seen = names(client, [command for command in commands if not command.upper().startswith(("CONFIG", "COMMAND"))])

    strays = {name for name in seen if not name.startswith(("chat:", "chat.2:"))}
    assert not strays
    with connect(clean_redis.url) as client:
        assert all(key.startswith(("chat:", "chat.2:")) for key in client.scan_iter())


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_an_operation_uses_the_prefix_only(clean_redis, operation: Callable[[Deployment, int], None]):
    with connect(clean_redis.url) as client:
        with monitored(clean_redis) as commands:
            deployment = Deployment(clean_redis.url, "own")
            for number in range(12):
                for step in (Deployment.enqueue, Deployment.claim, operation):
                    with suppress(ChatError, LeaseLost):
                        step(deployment, number)
            deployment.close()
        seen = names(client, commands)

    assert seen
    assert all(name.startswith("own:") for name in seen), seen


def test_two_deployments_do_not_answer_each_others_messages(clean_redis):
    here, there = Deployment(clean_redis.url, "here"), Deployment(clean_redis.url, "there")
    for number in range(12):
        here.queue.enqueue(new_message(f"user-{number}"), None, "enqueue")

    assert there.queue.claim(NO_WAIT) is None
    claims = [here.queue.claim(NO_WAIT) for _ in range(12)]

    assert all(claims)
    assert eventually(lambda: there.queue.counts() == (0, 0), DEADLINE)
    here.close()
    there.close()
