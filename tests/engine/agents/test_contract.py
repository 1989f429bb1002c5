"""What every agent does, whoever it is: one suite for all of them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest

from bff.api.services import Parts
from bff.auth.identity import Identity
from bff.config.environment import load_settings
from bff.engine.agents.base import Agent
from bff.engine.agents.broker import Broker, BrokerUpstream
from bff.engine.agents.registry import DEFAULT
from bff.errors import AnswerTimeout, ClientDisconnected, Interrupted
from bff.services import Services
from bff.upstream.messages import ChatMessage
from tests.broker_says import COMPLETED, TICKET
from tests.engine.agents.openai_server import BEGIN, HEAD, settings_of, whole, words
from tests.live import BASE_ENVIRONMENT, BROKER_KEY, DEADLINE, eventually, new_app
from tests.wire_server import HANG, LAST_CHUNK, WireServer, chunk, reply, stream_head

ANN = Identity("ann", "org")
HISTORY = [ChatMessage("user", "first"), ChatMessage("assistant", "a reply"), ChatMessage("user", "one two three")]

Working = tuple[Agent, Callable[[], bool], Callable[[], Any]]
"""An agent; whether nobody works for it any more; whether anybody was ever asked to."""


def agents(**settings: str) -> dict[str, Agent]:
    return Services(load_settings(BASE_ENVIRONMENT | settings)).agents


@contextmanager
def echo(falls_silent: bool) -> Iterator[Working]:
    yield agents(ECHO_WORD_SECONDS="30" if falls_silent else "0.01")["echo"], lambda: True, lambda: False


@contextmanager
def openai(falls_silent: bool) -> Iterator[Working]:
    answer = [HEAD, BEGIN, *words("one "), HANG] if falls_silent else whole("one ", "two ", "three")
    with WireServer(answer) as server:
        yield (
            agents(**settings_of(server))["openai"],
            lambda: not falls_silent or server.open_connections == 0,
            lambda: server.requests,
        )


@contextmanager
def openai_that_has_not_answered(_: bool) -> Iterator[Working]:
    with WireServer([HANG]) as server:
        yield agents(**settings_of(server))["openai"], lambda: server.open_connections == 0, lambda: server.requests


@contextmanager
def broker(falls_silent: bool) -> Iterator[Working]:
    """Before a broker that numbers its events: the bundled one."""
    parts: Parts = new_app(ECHO_WORD_SECONDS="30" if falls_silent else "0").extensions["chat_bff"]
    agent = Broker(BrokerUpstream(parts.broker, None, 30))
    yield agent, lambda: not parts.broker.places("ann"), lambda: parts.broker.places("ann")


@contextmanager
def engine(falls_silent: bool) -> Iterator[Working]:
    """The agent `broker` with an engine and no broker before it."""
    progress = [chunk(b'data: {"type":"progress","text":"%s"}\n\n' % text) for text in (b"one ", b"two ", b"three")]
    answer = [stream_head(), *progress[:1], HANG] if falls_silent else [stream_head(), *progress, COMPLETED, LAST_CHUNK]
    with WireServer(answer) as server:
        found = agents(ENGINE_BASE_URL=server.url)
        yield found["broker"], lambda: not falls_silent or server.open_connections == 0, lambda: server.requests


@contextmanager
def broker_that_has_not_answered(_: bool) -> Iterator[Working]:
    with WireServer([HANG]) as server:
        found = agents(BROKER_BASE_URL=server.url, BROKER_API_KEY=BROKER_KEY)
        yield found["broker"], lambda: server.open_connections == 0, lambda: server.requests


def begun(kind: Callable[[bool], Any], reply: Iterator[str | None]) -> Iterator[str | None]:
    """The reply once its first word is said, where there is one; then it is silent."""
    while kind is not openai_that_has_not_answered and next(reply) is None:
        pass
    return reply


def test_each_says_who_it_is():
    with WireServer([HANG]) as server:
        found = agents(ENGINE_BASE_URL=server.url, **settings_of(server))

    assert list(found) == ["echo", "demo", "broker", "openai"]
    assert list(agents()) == ["echo", "demo"]
    assert DEFAULT in found
    for agent_id, agent in found.items():
        assert agent.id == agent_id
        assert agent.name
        assert agent.description.endswith(".")


@pytest.mark.parametrize("kind", [echo, openai, broker, engine])
def test_the_pieces_are_the_reply(kind, waiter):
    with kind(False) as (agent, over, _):
        pieces = list(agent.stream(HISTORY, ANN, waiter))
        assert eventually(over, DEADLINE)

    assert [piece for piece in pieces if piece is not None] == ["one ", "two ", "three"]


def answer_of(*data: str) -> list[bytes]:
    return [stream_head(), *(chunk(f"data: {one}\n\n".encode()) for one in data), COMPLETED, LAST_CHUNK]


@pytest.mark.parametrize("before", [(), ('{"type":"status","message":"Thinking"}', '{"type":"tool_use","tool":"t"}')])
def test_an_external_answer_that_begins_anew_before_its_first_word_goes_on(before, waiter):
    answer = answer_of(*before, '{"type":"restart"}', '{"type":"progress","text":"ok"}')
    with WireServer([TICKET], answer) as server:
        agent = agents(BROKER_BASE_URL=server.url, BROKER_API_KEY=BROKER_KEY)["broker"]

        assert [piece for piece in agent.stream(HISTORY, ANN, waiter) if piece is not None] == ["ok"]


def test_an_external_answer_that_begins_anew_after_its_first_word_is_interrupted_and_stopped(waiter):
    answer = answer_of('{"type":"progress","text":"Half"}', '{"type":"restart"}')
    with WireServer([TICKET], answer, [reply(b"{}", "202 Accepted")]) as server:
        agent = agents(BROKER_BASE_URL=server.url, BROKER_API_KEY=BROKER_KEY)["broker"]
        with pytest.raises(Interrupted):
            list(agent.stream(HISTORY, ANN, waiter))

        assert server.wait_for(lambda: server.requests[-1].method == "DELETE")


@pytest.mark.parametrize("reason", [ClientDisconnected(), AnswerTimeout()], ids=["its reader leaves", "its time is up"])
@pytest.mark.parametrize("kind", [echo, openai, broker, engine, openai_that_has_not_answered])
def test_it_stops_at_once_when_it_is_ended_while_it_waits(kind, reason, waiter):
    with kind(True) as (agent, over, _):
        reply = begun(kind, agent.stream(HISTORY, ANN, waiter))
        ending = threading.Timer(0.1, waiter.cancel, [reason])
        ending.start()
        with pytest.raises(type(reason)):
            list(reply)
        ending.join(DEADLINE)

        assert eventually(over, DEADLINE)
    assert next(reply, "nothing more") == "nothing more"


@pytest.mark.parametrize("kind", [echo, openai, broker, engine, openai_that_has_not_answered])
def test_closed_it_lets_go_of_everything(kind, waiter):
    with kind(True) as (agent, over, asked):
        reply = begun(kind, agent.stream(HISTORY, ANN, waiter))
        next(reply)
        assert kind is echo or eventually(asked, DEADLINE)
        reply.close()

        assert eventually(over, DEADLINE)


@pytest.mark.parametrize("kind", [openai_that_has_not_answered, broker_that_has_not_answered])
def test_closed_before_it_began_it_never_asks(kind, waiter):
    with kind(True) as (agent, _, asked):
        agent.stream(HISTORY, ANN, waiter).close()

        assert not eventually(asked, 0.2)


@pytest.mark.parametrize("kind", [openai, broker, engine, openai_that_has_not_answered])
def test_while_it_waits_its_stream_can_say_something_of_its_own(kind, waiter):
    with kind(True) as (agent, _, _):
        reply = begun(kind, agent.stream(HISTORY, ANN, waiter))
        for _ in range(3):
            waiter.wake_at = monotonic() + 0.05
            while monotonic() < waiter.wake_at:
                assert next(reply) is None
        reply.close()
