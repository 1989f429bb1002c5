"""One trace through all processes that handle a message."""

import pytest

from tests.broker_responses import COMPLETED
from tests.live import BROKER_KEY, Browser, Server, eventually
from tests.wire_server import LAST_CHUNK, WireServer, stream_head

pytestmark = [pytest.mark.live, pytest.mark.timeout(90)]

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS = {"X_Request_ID": "find-me", "traceparent": f"00-{TRACE}-{SPAN}-01"}


def lines_of_trace(*servers: Server) -> dict[str, dict]:
    lines = [line for server in servers for line in server.log_lines if line.get("trace_id") == TRACE]
    return {line["logger"]: line for line in lines}


def test_a_trace_is_logged_from_the_request_to_the_engine(start, kind):
    server = start(kind)
    loggers = {"bff.requests", "bff.broker.routes", "bff.broker.worker", "bff.engine"}

    with Browser(server).say("hello", **HEADERS) as reply:
        list(reply.events())

    assert eventually(lambda: loggers <= lines_of_trace(server).keys(), 15), server.log
    lines = lines_of_trace(server)
    assert {lines[name]["request_id"] for name in loggers} == {"find-me"}
    assert lines["bff.broker.worker"]["message_id"] == reply.message_id


def test_a_trace_is_passed_on_between_processes(start):
    with WireServer([stream_head(), COMPLETED, LAST_CHUNK]) as engine:
        broker = start("broker", BROKER_API_KEY=BROKER_KEY, ENGINE_BASE_URL=engine.url, ENGINE_API_KEY="k" * 32)
        web = start("gunicorn", BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY)

        with Browser(web).say("hello", **HEADERS) as reply:
            list(reply.events())

        version, trace_id, span, flags = engine.requests[0].headers["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", TRACE, "01")
    assert span != SPAN
    assert engine.requests[0].headers["x-request-id"] == "find-me"
    assert eventually(lambda: lines_of_trace(broker).keys() == {"bff.broker.routes", "bff.broker.worker"}, 15)


def test_a_message_in_redis_keeps_its_trace(start, clean_redis):
    worker = start("worker", REDIS_URL=clean_redis.url)
    web = start("gunicorn", REDIS_URL=clean_redis.url, RUN_WORKER="0")

    with Browser(web).say("hello", **HEADERS) as reply:
        list(reply.events())

    assert eventually(lambda: {"bff.broker.worker", "bff.engine"} <= lines_of_trace(worker).keys(), 15), worker.log
    assert lines_of_trace(worker)["bff.engine"]["request_id"] == "find-me"
