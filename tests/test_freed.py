"""What is stored of an error holds nothing: whoever waited, failed or left is freed by reference counting alone.

Each scenario is run in a frame that holds a `Thing`. An exception that is stored where its own traceback can reach it keeps
that frame, and so the thing, until the garbage collector comes, which is off here.
"""

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from math import inf
from time import monotonic
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import EnvironBuilder

from bff.auth.identity import Identity
from bff.auth.jwks import JWKSCache
from bff.config.environment import load_settings
from bff.engine.agents.openai import OpenAI
from bff.errors import ClientDisconnected, Draining, StorageUnavailable, UpstreamError, UpstreamUnavailable
from bff.http import waiting
from bff.http.sse import Event
from bff.http.streams import StreamLimiter
from bff.http.waiting.background import in_background
from bff.http.waiting.inner import InnerWaiter
from bff.services import Services
from bff.upstream import http
from bff.upstream.http import EventSource, InProcessService, new_session, send
from bff.upstream.messages import ChatMessage
from bff.upstream.reconnect import ReconnectingReply
from bff.upstream.relay import Relay
from bff.upstream.services import Remote, Timeouts
from bff.upstream.unnumbered import Question, UnnumberedReply
from tests.api.chat_requests import client_of
from tests.broker_says import TICKET
from tests.live import ADA, BASE_ENVIRONMENT, DEADLINE, eventually, new_app
from tests.wire_server import CUT, UNNUMBERED, WireServer, chunk, reply, stream_head

NOWHERE = "http://127.0.0.1:1"
ONE_WORD = chunk(b'id: 1-0\ndata: {"type":"progress","text":"one"}\n\n')


class Thing:
    """What can be looked for."""


def fail(*_: Any) -> Any:
    raise UpstreamError


def ask(url: str, session: http.Session | None = None, waiter: waiting.Waiter | None = None, body: Any = None) -> Any:
    deadline = monotonic() + DEADLINE
    return send(session or new_session(), "POST", url, headers={}, connect=5, deadline=deadline, waiter=waiter, body=body)


def source(server: WireServer) -> EventSource:
    return EventSource(ask(server.url + "/"), 5)


def a_wait_that_is_ended(_: Thing) -> None:
    with closing(waiting.new_waiter()) as waiter:
        waiter.cancel(ClientDisconnected())
        with suppress(ClientDisconnected):
            waiter.wait()


def a_reader_that_is_asked_for(_: Thing) -> None:
    with closing(waiting.new_waiter()) as waiter:
        waiter.cancel(ClientDisconnected())
        with suppress(ClientDisconnected):
            list(waiter.confirm_connected())


def a_reason_that_was_raised_before(_: Thing) -> None:
    with closing(waiting.new_waiter()) as waiter:
        try:
            raise UpstreamError
        except UpstreamError as error:
            waiter.cancel(error)


def a_nested_wait_whose_reader_has_left(_: Thing) -> None:
    place = InnerWaiter(inf)
    with closing(waiting.new_waiter()) as waiter:
        place.borrow(waiter)
        waiter.cancel(ClientDisconnected())
        with suppress(ClientDisconnected):
            place.wait()


def a_nested_wait_that_is_cut(_: Thing) -> None:
    place = InnerWaiter(inf)
    place.abort()
    with suppress(ClientDisconnected):
        place.wait()


def a_slot_that_is_drained(_: Thing) -> None:
    with StreamLimiter(1, 1).enter("ada") as slot, closing(waiting.new_waiter()) as waiter:
        slot.cancel(Draining())
        slot.attach(waiter)
        with suppress(Draining):
            waiter.wait()
        slot.release()


def a_call_that_fails_beside(_: Thing) -> None:
    with closing(waiting.new_waiter()) as waiter, suppress(UpstreamError):
        list(in_background(fail, waiter, fail))


def a_call_beside_that_is_left(thing: Thing) -> None:
    def work(waiter: waiting.Waiter) -> Thing:
        waiter.wait()
        return thing

    with closing(waiting.new_waiter()) as waiter:
        call = in_background(work, waiter, lambda _: None)
        next(call)
        call.close()


def a_call_that_fails_aside(_: Thing) -> None:
    with suppress(UpstreamError):
        waiting.ThreadExecutor()(fail)


def an_unnumbered_reply_that_is_cut(thing: Thing) -> None:
    with (
        WireServer([TICKET], [stream_head(), ONE_WORD, CUT], queue=UNNUMBERED) as server,
        closing(waiting.new_waiter()) as waiter,
        suppress(UpstreamUnavailable),
    ):
        services = Services(load_settings(BASE_ENVIRONMENT | {"BROKER_BASE_URL": server.url, "BROKER_API_KEY": "key"}))
        content = {"message": "hello", "thing": str(thing)}
        question = Question(Identity("ada", "org"), content, 0.0)
        reply = UnnumberedReply(services.external_broker, None, question)
        reply.thing = thing
        reply.start(waiter)
        list(reply.events(waiter))


def an_answer_that_breaks_for_good(_: Thing) -> None:
    with WireServer([stream_head(), CUT]) as broker, closing(waiting.new_waiter()) as waiter, suppress(UpstreamUnavailable):
        list(ReconnectingReply(fail, source(broker)).events(waiter))


def an_answer_that_is_left_while_its_broker_is_away(_: Thing) -> None:
    def away(*_: Any) -> None:
        waiter.cancel(ClientDisconnected())
        raise StorageUnavailable

    with (
        WireServer([stream_head(), ONE_WORD, CUT]) as broker,
        closing(waiting.new_waiter()) as waiter,
        suppress(ClientDisconnected),
    ):
        list(ReconnectingReply(away, source(broker)).events(waiter))


def a_relay_whose_answer_breaks(thing: Thing) -> None:
    def broken(_: Thing = thing) -> Iterator[Event]:
        yield from ()
        raise UpstreamError

    relay = Relay("request")
    list(relay(broken()))
    assert relay.problem is not None


def a_refusal_of_the_models_server(_: Thing) -> None:
    with WireServer([reply(b"{}", "500 Oops")]) as server, closing(waiting.new_waiter()) as waiter, suppress(UpstreamError):
        model = OpenAI(Remote(server.url, "key"), new_session(), Timeouts(5, 5, 5, 5), "a-model", 1000)
        list(model.stream([ChatMessage("user", "hello")], Identity("ada", "org"), waiter))


def a_neighbour_whose_asker_leaves(_: Thing) -> None:
    with closing(waiting.new_waiter()) as waiter, suppress(ClientDisconnected):

        def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
            start_response("200 OK", [])
            waiter.cancel(ClientDisconnected())
            return []

        neighbour = InProcessService("name", lambda _: app)
        ask(neighbour.url + "/", new_session(to=neighbour), waiter)


def a_neighbour_whose_reader_leaves(_: Thing) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [])
        waiter.cancel(ClientDisconnected())
        yield b"one"

    with closing(waiting.new_waiter()) as waiter:
        neighbour = InProcessService("name", lambda _: lambda *_: app(*_))
        with suppress(ClientDisconnected), closing(http.ByteStream(ask(neighbour.url, new_session(to=neighbour)), 5)) as body:
            list(body.chunks(waiter))


def a_service_that_is_not_there(_: Thing) -> None:
    with suppress(UpstreamUnavailable):
        ask(NOWHERE)


def a_service_that_hangs_up(_: Thing) -> None:
    with WireServer([CUT]) as server, suppress(UpstreamUnavailable):
        ask(server.url)


def a_key_that_cannot_be_fetched(_: Thing) -> None:
    with suppress(UpstreamUnavailable):
        JWKSCache(fail).find("name")


def served(app: Flask, thing: Thing, path: str, **options: Any) -> str:
    """The status with which a request is answered whose environ holds `thing`, as a server asks: Flask's client has cycles."""
    environ = EnvironBuilder(path=path, headers=ADA, environ_overrides={"thing": thing}, **options).get_environ()
    statuses: list[str] = []
    answer: Any = app.wsgi_app(environ, lambda status, *_: statuses.append(status))
    list(answer)
    answer.close()
    return statuses[0][:3]


def a_path_that_is_not_there(thing: Thing) -> None:
    assert served(new_app(), thing, "/nothing") == "404"


def a_completion_that_breaks(thing: Thing) -> None:
    asked = {"model": "default", "messages": [{"role": "user", "content": "hello"}]}
    with WireServer([TICKET], [stream_head(), CUT]) as broker:
        app = client_of(broker).application
        assert served(app, thing, "/v1/chat/completions", method="POST", json=asked) == "503"


SCENARIOS = [value for name, value in list(globals().items()) if name.startswith(("a_", "an_"))]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_nothing_is_left_of(scenario):
    thing = Thing()
    found = weakref.ref(thing)
    gc.collect()
    gc.disable()
    try:
        scenario(thing)
        del thing
        assert eventually(lambda: found() is None, 2), scenario
    finally:
        gc.enable()
