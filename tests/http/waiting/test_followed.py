"""What whoever looks after it sees from outside: one trace through all that a message passes, and a drain in the numbers."""

import contextlib
import http.client
import os
import signal

import pytest

from tests.broker_says import COMPLETED
from tests.live import BROKER_KEY, Browser, Server, eventually, in_parallel
from tests.ops.numbers import numbers
from tests.wire_server import LAST_CHUNK, WireServer, stream_head

pytestmark = [pytest.mark.live, pytest.mark.timeout(90)]

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAID = {"X_Request_ID": "find-me", "traceparent": f"00-{TRACE}-{SPAN}-01"}


def lines_of_trace(*servers: Server) -> dict[str, dict]:
    lines = [line for server in servers for line in server.log_lines if line.get("trace_id") == TRACE]
    return {line["logger"]: line for line in lines}


def counted(server: Server) -> dict[str, float]:
    """Whoever answers for them all: one that is about to go may hang up."""

    def ask() -> dict[str, float]:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return numbers(Browser(server).request("GET", "/metrics").read().decode())
        return {}

    return eventually(ask, 20)


def test_a_trace_is_followed_from_the_browsers_header_to_the_engines_log(start, kind):
    server = start(kind)
    passed = {"bff.requests", "bff.broker.routes", "bff.broker.worker", "bff.engine"}

    with Browser(server).say("hello", **SAID) as reply:
        list(reply.events())

    assert eventually(lambda: passed <= lines_of_trace(server).keys(), 15), server.log
    lines = lines_of_trace(server)
    assert {lines[name]["request_id"] for name in passed} == {"find-me"}
    assert lines["bff.broker.worker"]["message_id"] == reply.message_id


def test_a_trace_goes_through_processes_each_a_span_of_its_own(start):
    with WireServer([stream_head(), COMPLETED, LAST_CHUNK]) as engine:
        broker = start("broker", BROKER_API_KEY=BROKER_KEY, ENGINE_BASE_URL=engine.url, ENGINE_API_KEY="k" * 32)
        web = start("gunicorn", BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY)

        with Browser(web).say("hello", **SAID) as reply:
            list(reply.events())

        version, trace_id, span, flags = engine.requests[0].headers["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", TRACE, "01")
    assert span != SPAN
    assert engine.requests[0].headers["x-request-id"] == "find-me"
    assert eventually(lambda: lines_of_trace(broker).keys() == {"bff.broker.routes", "bff.broker.worker"}, 15)


def test_a_message_in_redis_keeps_its_trace_for_whoever_answers_it(start, clean_redis):
    worker = start("worker", REDIS_URL=clean_redis.url)
    web = start("gunicorn", REDIS_URL=clean_redis.url, RUN_WORKER="0")

    with Browser(web).say("hello", **SAID) as reply:
        list(reply.events())

    assert eventually(lambda: {"bff.broker.worker", "bff.engine"} <= lines_of_trace(worker).keys(), 15), worker.log
    assert lines_of_trace(worker)["bff.engine"]["request_id"] == "find-me"


def test_what_drained_processes_told_is_in_the_numbers_when_they_are_gone(start, clean_redis):
    web = start("gunicorn", REDIS_URL=clean_redis.url, WEB_CONCURRENCY="2", DRAIN_SECONDS="4")
    workers = eventually(lambda: len(web.children) == 2 and web.children, 15)
    streams = in_parallel(12, lambda number: Browser(web, f"user-{number}").say("/silence 3600", X_Chat_Resume="1"))
    assert eventually(lambda: counted(web)["chat_streams_open{kind=chat}"] == 12, 15)

    for pid in workers:
        os.kill(pid, signal.SIGTERM)

    assert eventually(lambda: counted(web).get("chat_streams_ended_total{ended=drained,kind=chat}") == 12, 30), counted(web)
    assert counted(web)["chat_streams_open{kind=chat}"] == 0
    assert counted(web)["chat_streams_started_total{how=said,kind=chat}"] == 12
    for stream in streams:
        stream.close()


def test_what_a_killed_process_had_open_is_not_open_any_more(start, clean_redis):
    web = start("gunicorn", REDIS_URL=clean_redis.url, WEB_CONCURRENCY="2")
    workers = eventually(lambda: len(web.children) == 2 and web.children, 15)
    streams = in_parallel(6, lambda number: Browser(web, f"user-{number}").say("/silence 3600"))
    assert eventually(lambda: counted(web)["chat_streams_open{kind=chat}"] == 6, 15)

    for pid in workers:
        os.kill(pid, signal.SIGKILL)

    assert eventually(lambda: counted(web).get("chat_streams_open{kind=chat}") == 0, 30)
    assert counted(web)["chat_streams_started_total{how=said,kind=chat}"] == 6
    for stream in streams:
        stream.close()
