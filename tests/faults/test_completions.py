"""/v1 completions when clients disconnect, the server stops, or workers are killed."""

import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile

import pytest

from tests.engine.agents.openai_server import BEGIN, DONE, HEAD, piece, settings_of, text_deltas
from tests.live import DEADLINE, Browser, Reply, Server
from tests.wire_server import HANG, LAST_CHUNK, WireServer

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

COMPLETE = [HEAD, BEGIN, *text_deltas("one ", "two"), piece({}, "stop"), DONE, LAST_CHUNK]
STUCK = [HEAD, BEGIN, *text_deltas("one "), HANG]


def post_completion(server: Server, stream: bool = True) -> Reply:
    body = {"model": "openai", "stream": stream, "messages": [{"role": "user", "content": "hello"}]}
    return Browser(server).request("POST", "/v1/chat/completions", body)


def chunks(reply: Reply) -> Iterator[dict]:
    data = (frame.removeprefix("data: ").strip() for frame in reply.frames() if frame.startswith("data: "))
    return (json.loads(text) for text in takewhile(lambda text: text != "[DONE]", data))


def text_of(parts: list[dict]) -> str:
    return "".join(part["choices"][0]["delta"].get("content", "") for part in parts if "choices" in part)


def first_text(parts: Iterator[dict]) -> str:
    """The first text of the stream."""
    return next(text for part in parts if (text := text_of([part])))


def test_a_client_that_disconnects_stops_the_model(start, kind):
    with WireServer(STUCK) as model:
        reply = post_completion(start(kind, **settings_of(model)))
        assert first_text(chunks(reply)) == "one "
        reply.leave()

        assert model.wait_for(lambda: model.hung_up == 1, DEADLINE)


def test_a_stop_of_the_server_ends_streams(start):
    with WireServer(STUCK) as model:
        server = start("gunicorn", DRAIN_SECONDS="2", **settings_of(model))
        with post_completion(server) as reply:
            parts = chunks(reply)
            assert first_text(parts) == "one "
            server.kill(signal.SIGTERM)
            last = list(parts)[-1]
        assert server.process.wait(DEADLINE) == 0

    assert last["error"]["code"] == "server_restarting"


@pytest.fixture
def fleet(start, clean_redis):
    """`fleet(model)` returns a web process without a worker, and a function that starts a worker."""

    def start_fleet(model: WireServer):
        settings = {"REDIS_URL": clean_redis.url, "LEASE_SECONDS": "1", "RUN_WORKER": "0", **settings_of(model)}
        return start("gunicorn", **settings), lambda: start("worker", **settings)

    return start_fleet


@pytest.mark.parametrize("stream", [True, False])
def test_a_message_without_output_is_retried_by_another_worker(fleet, stream):
    with WireServer([HANG], COMPLETE) as model:
        web, worker = fleet(model)
        first = worker()
        reply = post_in_background(web, stream)
        assert model.wait_for(lambda: len(model.requests) == 1, DEADLINE)
        first.crash()
        worker()

        assert reply() == "one two"
    assert len(model.requests) == 2


def test_a_reply_with_output_of_a_killed_worker_is_interrupted(fleet):
    with WireServer(STUCK, COMPLETE) as model:
        web, worker = fleet(model)
        first = worker()
        with post_completion(web) as reply:
            parts = chunks(reply)
            assert first_text(parts) == "one "
            first.crash()
            worker()
            last = list(parts)[-1]

    assert last["error"]["code"] == "interrupted"
    assert len(model.requests) == 1


def post_in_background(web: Server, stream: bool) -> Callable[[], str]:
    """Returns a function that waits for the text. Without streaming, the response's head arrives at the end."""
    if stream:
        reply = post_completion(web)
        return lambda: text_of(list(chunks(reply)))
    future = ThreadPoolExecutor(1).submit(lambda: post_completion(web, stream=False).json())
    return lambda: future.result(DEADLINE)["choices"][0]["message"]["content"]
