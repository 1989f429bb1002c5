"""Stored exceptions form no reference cycles: everything is freed by reference counting, without the garbage collector.

Each scenario runs in a frame that refers to a `Canary`. An exception that is stored where its own traceback refers to it keeps
that frame, and so the canary, alive until the garbage collector runs, which is disabled here.
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
from tests.broker_responses import RECEIPT
from tests.live import ADA, BASE_ENVIRONMENT, DEADLINE, eventually, new_app
from tests.wire_server import CUT, UNNUMBERED, WireServer, chunk, reply, stream_head

CLOSED_PORT = "http://127.0.0.1:1"
ONE_WORD = chunk(b'id: 1-0\ndata: {"type":"progress","text":"one"}\n\n')


class Canary:
    """An object that weak references can be made to."""


def fail(*_: Any) -> Any:
    raise UpstreamError


def fetch(url: str, session: http.Session | None = None, waiter: waiting.Waiter | None = None, body: Any = None) -> Any:
    deadline = monotonic() + DEADLINE
    return send(session or new_session(), "POST", url, headers={}, connect=5, deadline=deadline, waiter=waiter, body=body)


def source(server: WireServer) -> EventSource:
    return EventSource(fetch(server.url + "/"), 5)


def a_cancelled_wait(_: Canary) -> None:
    with closing(waiting.new_waiter()) as waiter:
        waiter.cancel(ClientDisconnected())
        with suppress(ClientDisconnected):
            waiter.wait()


def a_cancelled_connection_check(_: Canary) -> None:
    with closing(waiting.new_waiter()) as waiter:
        waiter.cancel(ClientDisconnected())
        with suppress(ClientDisconnected):
            list(waiter.confirm_connected())


def a_cancel_reason_that_was_raised_before(_: Canary) -> None:
    with closing(waiting.new_waiter()) as waiter:
        try:
            raise UpstreamError
        except UpstreamError as error:
            waiter.cancel(error)


def an_inner_wait_whose_reader_disconnected(_: Canary) -> None:
    inner = InnerWaiter(inf)
    with closing(waiting.new_waiter()) as waiter:
        inner.borrow(waiter)
        waiter.cancel(ClientDisconnected())
        with suppress(ClientDisconnected):
            inner.wait()


def an_aborted_inner_wait(_: Canary) -> None:
    inner = InnerWaiter(inf)
    inner.abort()
    with suppress(ClientDisconnected):
        inner.wait()


def a_drained_slot(_: Canary) -> None:
    with StreamLimiter(1, 1).acquire("ada") as slot, closing(waiting.new_waiter()) as waiter:
        slot.cancel(Draining())
        slot.attach(waiter)
        with suppress(Draining):
            waiter.wait()
        slot.release()


def a_failed_background_call(_: Canary) -> None:
    with closing(waiting.new_waiter()) as waiter, suppress(UpstreamError):
        list(in_background(fail, waiter, fail))


def an_abandoned_background_call(canary: Canary) -> None:
    def work(waiter: waiting.Waiter) -> Canary:
        waiter.wait()
        return canary

    with closing(waiting.new_waiter()) as waiter:
        call = in_background(work, waiter, lambda _: None)
        next(call)
        call.close()


def a_failed_call_in_a_thread_executor(_: Canary) -> None:
    with suppress(UpstreamError):
        waiting.ThreadExecutor()(fail)


def an_unnumbered_reply_whose_connection_is_lost(canary: Canary) -> None:
    with (
        WireServer([RECEIPT], [stream_head(), ONE_WORD, CUT], queue=UNNUMBERED) as server,
        closing(waiting.new_waiter()) as waiter,
        suppress(UpstreamUnavailable),
    ):
        services = Services(load_settings(BASE_ENVIRONMENT | {"BROKER_BASE_URL": server.url, "BROKER_API_KEY": "key"}))
        content = {"message": "hello", "canary": str(canary)}
        message = Question(Identity("ada", "org"), content, 0.0)
        reply = UnnumberedReply(services.external_broker, None, message)
        reply.canary = canary
        reply.start(waiter)
        list(reply.events(waiter))


def a_reply_that_cannot_be_reopened(_: Canary) -> None:
    with WireServer([stream_head(), CUT]) as broker, closing(waiting.new_waiter()) as waiter, suppress(UpstreamUnavailable):
        list(ReconnectingReply(fail, source(broker)).events(waiter))


def a_reply_whose_reader_disconnects_while_the_broker_is_unavailable(_: Canary) -> None:
    def unavailable(*_: Any) -> None:
        waiter.cancel(ClientDisconnected())
        raise StorageUnavailable

    with (
        WireServer([stream_head(), ONE_WORD, CUT]) as broker,
        closing(waiting.new_waiter()) as waiter,
        suppress(ClientDisconnected),
    ):
        list(ReconnectingReply(unavailable, source(broker)).events(waiter))


def a_relay_whose_reply_fails(canary: Canary) -> None:
    def broken(_: Canary = canary) -> Iterator[Event]:
        yield from ()
        raise UpstreamError

    relay = Relay("request")
    list(relay(broken()))
    assert relay.error is not None


def an_error_of_the_model_server(_: Canary) -> None:
    with WireServer([reply(b"{}", "500 Oops")]) as server, closing(waiting.new_waiter()) as waiter, suppress(UpstreamError):
        model = OpenAI(Remote(server.url, "key"), new_session(), Timeouts(5, 5, 5, 5), "a-model", 1000)
        list(model.stream([ChatMessage("user", "hello")], Identity("ada", "org"), waiter))


def an_in_process_request_whose_caller_disconnects(_: Canary) -> None:
    with closing(waiting.new_waiter()) as waiter, suppress(ClientDisconnected):

        def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
            start_response("200 OK", [])
            waiter.cancel(ClientDisconnected())
            return []

        service = InProcessService("name", lambda _: app)
        fetch(service.url + "/", new_session(to=service), waiter)


def an_in_process_stream_whose_reader_disconnects(_: Canary) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [])
        waiter.cancel(ClientDisconnected())
        yield b"one"

    with closing(waiting.new_waiter()) as waiter:
        service = InProcessService("name", lambda _: lambda *_: app(*_))
        with suppress(ClientDisconnected), closing(http.ByteStream(fetch(service.url, new_session(to=service)), 5)) as body:
            list(body.chunks(waiter))


def a_refused_connection(_: Canary) -> None:
    with suppress(UpstreamUnavailable):
        fetch(CLOSED_PORT)


def a_connection_reset(_: Canary) -> None:
    with WireServer([CUT]) as server, suppress(UpstreamUnavailable):
        fetch(server.url)


def a_jwks_fetch_that_fails(_: Canary) -> None:
    with suppress(UpstreamUnavailable):
        JWKSCache(fail).find("name")


def status_of(app: Flask, canary: Canary, path: str, **options: Any) -> str:
    """The status of a request whose environ refers to `canary`. Called like a server does: Flask's test client has cycles."""
    environ = EnvironBuilder(path=path, headers=ADA, environ_overrides={"canary": canary}, **options).get_environ()
    statuses: list[str] = []
    body: Any = app.wsgi_app(environ, lambda status, *_: statuses.append(status))
    list(body)
    body.close()
    return statuses[0][:3]


def a_not_found_response(canary: Canary) -> None:
    assert status_of(new_app(), canary, "/nothing") == "404"


def a_failed_completion(canary: Canary) -> None:
    content = {"model": "default", "messages": [{"role": "user", "content": "hello"}]}
    with WireServer([RECEIPT], [stream_head(), CUT]) as broker:
        app = client_of(broker).application
        assert status_of(app, canary, "/v1/chat/completions", method="POST", json=content) == "503"


SCENARIOS = [value for name, value in list(globals().items()) if name.startswith(("a_", "an_"))]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_everything_is_freed_after(scenario):
    canary = Canary()
    reference = weakref.ref(canary)
    gc.disable()
    try:
        scenario(canary)
        del canary
        assert eventually(lambda: reference() is None, 2), scenario
    finally:
        gc.enable()
