"""The contract of agents: one suite for all of them."""

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
from bff.engine.agents.registry import DEFAULT_AGENT
from bff.errors import AnswerTimeout, ClientDisconnected, Interrupted
from bff.services import Services
from bff.upstream.messages import ChatMessage
from bff.upstream.open_replies import OpenReplies
from tests.broker_responses import COMPLETED, RECEIPT
from tests.engine.agents.openai_server import BEGIN, HEAD, full_reply, settings_of, text_deltas
from tests.live import BASE_ENVIRONMENT, BROKER_KEY, DEADLINE, eventually, new_app
from tests.wire_server import HANG, LAST_CHUNK, WireServer, chunk, reply, stream_head

ANN = Identity("ann", "org")
HISTORY = [ChatMessage("user", "first"), ChatMessage("assistant", "a reply"), ChatMessage("user", "one two three")]

Setup = tuple[Agent, Callable[[], bool], Callable[[], Any]]
"""An agent; whether its upstream is idle; whether its upstream was ever called."""


def agents(**settings: str) -> dict[str, Agent]:
    return Services(load_settings(BASE_ENVIRONMENT | settings)).agents


@contextmanager
def echo(hangs: bool) -> Iterator[Setup]:
    yield agents(ECHO_WORD_SECONDS="30" if hangs else "0.01")["echo"], lambda: True, lambda: False


@contextmanager
def openai(hangs: bool) -> Iterator[Setup]:
    reply = [HEAD, BEGIN, *text_deltas("one "), HANG] if hangs else full_reply("one ", "two ", "three")
    with WireServer(reply) as server:
        yield (
            agents(**settings_of(server))["openai"],
            lambda: not hangs or server.open_connections == 0,
            lambda: server.requests,
        )


@contextmanager
def openai_without_response(_: bool) -> Iterator[Setup]:
    with WireServer([HANG]) as server:
        yield agents(**settings_of(server))["openai"], lambda: server.open_connections == 0, lambda: server.requests


@contextmanager
def broker(hangs: bool) -> Iterator[Setup]:
    """With a broker that numbers its events: the bundled one."""
    parts: Parts = new_app(ECHO_WORD_SECONDS="30" if hangs else "0").extensions["chat_bff"]
    agent = Broker(BrokerUpstream(parts.broker, None, 30, OpenReplies()))
    yield agent, lambda: not parts.broker.queue_positions("ann"), lambda: parts.broker.queue_positions("ann")


@contextmanager
def engine(hangs: bool) -> Iterator[Setup]:
    """The agent `broker` with an engine and no broker."""
    progress = [chunk(b'data: {"type":"progress","text":"%s"}\n\n' % text) for text in (b"one ", b"two ", b"three")]
    response = [stream_head(), *progress[:1], HANG] if hangs else [stream_head(), *progress, COMPLETED, LAST_CHUNK]
    with WireServer(response) as server:
        agent = agents(ENGINE_BASE_URL=server.url)["broker"]
        yield agent, lambda: not hangs or server.open_connections == 0, lambda: server.requests


@contextmanager
def broker_without_response(_: bool) -> Iterator[Setup]:
    with WireServer([HANG]) as server:
        agent = agents(BROKER_BASE_URL=server.url, BROKER_API_KEY=BROKER_KEY)["broker"]
        yield agent, lambda: server.open_connections == 0, lambda: server.requests


def started(kind: Callable[[bool], Any], reply: Iterator[str | None]) -> Iterator[str | None]:
    """The reply after its first piece, where there is one; then it hangs."""
    while kind is not openai_without_response and next(reply) is None:
        pass
    return reply


def test_each_has_an_id_a_name_and_a_description():
    with WireServer([HANG]) as server:
        found = agents(ENGINE_BASE_URL=server.url, **settings_of(server))

    assert list(found) == ["echo", "demo", "broker", "openai"]
    assert list(agents()) == ["echo", "demo"]
    assert DEFAULT_AGENT in found
    for agent_id, agent in found.items():
        assert agent.id == agent_id
        assert agent.name
        assert agent.description.endswith(".")


@pytest.mark.parametrize("kind", [echo, openai, broker, engine])
def test_the_pieces_make_up_the_reply(kind, waiter):
    with kind(False) as (agent, is_idle, _):
        pieces = list(agent.stream(HISTORY, ANN, waiter))
        assert eventually(is_idle, DEADLINE)

    assert [piece for piece in pieces if piece is not None] == ["one ", "two ", "three"]


def stream_of(*data: str) -> list[bytes]:
    return [stream_head(), *(chunk(f"data: {content}\n\n".encode()) for content in data), COMPLETED, LAST_CHUNK]


@pytest.mark.parametrize("before", [(), ('{"type":"status","message":"Thinking"}', '{"type":"tool_use","tool":"t"}')])
def test_a_restart_of_an_external_reply_before_its_first_text_is_ignored(before, waiter):
    response = stream_of(*before, '{"type":"restart"}', '{"type":"progress","text":"ok"}')
    with WireServer([RECEIPT], response) as server:
        agent = agents(BROKER_BASE_URL=server.url, BROKER_API_KEY=BROKER_KEY)["broker"]

        assert [piece for piece in agent.stream(HISTORY, ANN, waiter) if piece is not None] == ["ok"]


def test_a_restart_of_an_external_reply_after_its_first_text_interrupts_and_stops_it(waiter):
    response = stream_of('{"type":"progress","text":"Half"}', '{"type":"restart"}')
    with WireServer([RECEIPT], response, [reply(b"{}", "202 Accepted")]) as server:
        agent = agents(BROKER_BASE_URL=server.url, BROKER_API_KEY=BROKER_KEY)["broker"]
        with pytest.raises(Interrupted):
            list(agent.stream(HISTORY, ANN, waiter))

        assert server.wait_for(lambda: server.requests[-1].method == "DELETE")


@pytest.mark.parametrize("reason", [ClientDisconnected(), AnswerTimeout()], ids=["disconnect", "timeout"])
@pytest.mark.parametrize("kind", [echo, openai, broker, engine, openai_without_response])
def test_it_stops_when_it_is_cancelled_while_it_waits(kind, reason, waiter):
    with kind(True) as (agent, is_idle, _):
        reply = started(kind, agent.stream(HISTORY, ANN, waiter))
        cancel = threading.Timer(0.1, waiter.cancel, [reason])
        cancel.start()
        with pytest.raises(type(reason)):
            list(reply)
        cancel.join(DEADLINE)

        assert eventually(is_idle, DEADLINE)
    assert next(reply, "nothing more") == "nothing more"


@pytest.mark.parametrize("kind", [echo, openai, broker, engine, openai_without_response])
def test_closing_it_frees_its_upstream(kind, waiter):
    with kind(True) as (agent, is_idle, was_called):
        reply = started(kind, agent.stream(HISTORY, ANN, waiter))
        next(reply)
        assert kind is echo or eventually(was_called, DEADLINE)
        reply.close()

        assert eventually(is_idle, DEADLINE)


@pytest.mark.parametrize("kind", [openai_without_response, broker_without_response])
def test_closed_before_its_first_piece_it_never_calls_its_upstream(kind, waiter):
    with kind(True) as (agent, _, was_called):
        agent.stream(HISTORY, ANN, waiter).close()

        assert not eventually(was_called, 0.2)


@pytest.mark.parametrize("kind", [openai, broker, engine, openai_without_response])
def test_it_returns_control_at_wake_at_while_it_waits(kind, waiter):
    with kind(True) as (agent, _, _):
        reply = started(kind, agent.stream(HISTORY, ANN, waiter))
        for _ in range(3):
            waiter.wake_at = monotonic() + 0.05
            while monotonic() < waiter.wake_at:
                assert next(reply) is None
        reply.close()
