"""Agents at /v1: their clients leave, the server is told to stop, workers are killed."""

import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile

import pytest

from tests.engine.agents.openai_server import BEGIN, DONE, HEAD, piece, settings_of, words
from tests.live import DEADLINE, Browser, Reply, Server
from tests.wire_server import HANG, LAST_CHUNK, WireServer

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

WHOLE = [HEAD, BEGIN, *words("one ", "two"), piece({}, "stop"), DONE, LAST_CHUNK]
STUCK = [HEAD, BEGIN, *words("one "), HANG]


def ask(server: Server, stream: bool = True) -> Reply:
    asked = {"model": "openai", "stream": stream, "messages": [{"role": "user", "content": "hello"}]}
    return Browser(server).request("POST", "/v1/chat/completions", asked)


def chunks(reply: Reply) -> Iterator[dict]:
    data = (frame.removeprefix("data: ").strip() for frame in reply.frames() if frame.startswith("data: "))
    return (json.loads(text) for text in takewhile(lambda text: text != "[DONE]", data))


def text_of(parts: list[dict]) -> str:
    return "".join(part["choices"][0]["delta"].get("content", "") for part in parts if "choices" in part)


def spoken(parts: Iterator[dict]) -> str:
    """The first text."""
    return next(text for part in parts if (text := text_of([part])))


def test_a_client_that_leaves_its_stream_stops_the_model(start, kind):
    with WireServer(STUCK) as model:
        reply = ask(start(kind, **settings_of(model)))
        assert spoken(chunks(reply)) == "one "
        reply.leave()

        assert model.wait_for(lambda: model.hung_up == 1, DEADLINE)


def test_a_stop_of_the_server_ends_streams_and_whole_answers(start):
    with WireServer(STUCK) as model:
        server = start("gunicorn", DRAIN_SECONDS="2", **settings_of(model))
        with ask(server) as reply:
            parts = chunks(reply)
            assert spoken(parts) == "one "
            server.kill(signal.SIGTERM)
            last = list(parts)[-1]
        assert server.process.wait(DEADLINE) == 0

    assert last["error"]["code"] == "server_restarting"


@pytest.fixture
def fleet(start, clean_redis):
    """`fleet(model)`: a web process that answers nothing itself, and a function that starts a worker."""

    def begin(model: WireServer):
        settings = {"REDIS_URL": clean_redis.url, "LEASE_SECONDS": "1", "RUN_WORKER": "0", **settings_of(model)}
        return start("gunicorn", **settings), lambda: start("worker", **settings)

    return begin


@pytest.mark.parametrize("stream", [True, False])
def test_another_worker_answers_what_a_killed_one_had_not_begun(fleet, stream):
    with WireServer([HANG], WHOLE) as model:
        web, worker = fleet(model)
        first = worker()
        reply = ask_in_background(web, stream)
        assert model.wait_for(lambda: len(model.requests) == 1, DEADLINE)
        first.crash()
        worker()

        assert reply() == "one two"
    assert len(model.requests) == 2


def test_what_a_killed_worker_had_begun_ends_with_an_error(fleet):
    with WireServer(STUCK, WHOLE) as model:
        web, worker = fleet(model)
        first = worker()
        with ask(web) as reply:
            parts = chunks(reply)
            assert spoken(parts) == "one "
            first.crash()
            worker()
            last = list(parts)[-1]

    assert last["error"]["code"] == "interrupted"
    assert len(model.requests) == 1


def ask_in_background(web: Server, stream: bool) -> Callable[[], str]:
    """What gives the text once it is there: a whole answer's head comes with its end."""
    if stream:
        reply = ask(web)
        return lambda: text_of(list(chunks(reply)))
    answer = ThreadPoolExecutor(1).submit(lambda: ask(web, stream=False).json())
    return lambda: answer.result(DEADLINE)["choices"][0]["message"]["content"]
