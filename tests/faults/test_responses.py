"""/v1/responses when readers leave or move, and when servers and workers are killed."""

import json
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.api.response_requests import EVENT, checked, text
from tests.engine.agents.openai_server import BEGIN, DONE, HEAD, piece, settings_of, text_deltas
from tests.faults.deployments import HIGH_LIMITS
from tests.live import DEADLINE, Browser, Reply, Server, eventually, in_parallel
from tests.wire_server import HANG, LAST_CHUNK, WireServer

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

TEXT = "one two three four five six"
COMPLETE = [HEAD, BEGIN, *text_deltas("one ", "two"), piece({}, "stop"), DONE, LAST_CHUNK]
STUCK = [HEAD, BEGIN, *text_deltas("one "), HANG]
CLIENTS = 200


def post(server: Server, content: str = TEXT, model: str = "echo", user: str = "ada", **fields: Any) -> Reply:
    return Browser(server, user).request("POST", "/v1/responses", {"model": model, "input": content, "stream": True} | fields)


def follow(server: Server, response_id: str, after: int | None = None) -> Reply:
    query = "" if after is None else f"&starting_after={after}"
    return Browser(server).request("GET", f"/v1/responses/{response_id}?stream=true{query}")


def stored(server: Server, response_id: str) -> dict[str, Any]:
    return checked(Browser(server).request("GET", f"/v1/responses/{response_id}").json())


def events(reply: Reply) -> Iterator[dict[str, Any]]:
    """Validated, as they arrive. The client disconnects when the iterator is closed."""
    try:
        for event in reply.events():
            EVENT.validate_json(json.dumps(event), strict=True)
            yield event
    finally:
        reply.leave()


def next_event(reply: Reply) -> dict[str, Any] | None:
    """The next event, after which the client disconnects."""
    return next(events(reply), None)


def until_text(found: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events up to the first text."""
    begun = []
    for event in found:
        begun.append(event)
        if event["type"] == "response.output_text.delta":
            break
    return begun


def read_cut_after_each_event(servers: list[Server]) -> list[dict[str, Any]]:
    """All events of a response, each read on a connection of its own, of the servers in turn."""
    found = [next_event(post(servers[0], background=True))]
    response_id = found[0]["response"]["id"]
    while event := next_event(follow(servers[len(found) % len(servers)], response_id, found[-1]["sequence_number"])):
        found.append(event)
    return found


def check_cut(servers: list[Server]) -> None:
    found = read_cut_after_each_event(servers)
    response_id = found[0]["response"]["id"]

    assert [event["sequence_number"] for event in found] == [*range(len(found))]
    assert text(found[-1]["response"]) == TEXT
    for server in servers:
        assert [*events(follow(server, response_id))] == found
        assert stored(server, response_id) == found[-1]["response"]


@pytest.mark.slow
def test_a_stream_that_is_cut_after_each_event_is_resumed_exactly(share, kind):
    check_cut([share(kind, ECHO_WORD_SECONDS="0.05")])


def test_a_stream_is_resumed_in_another_process(start, clean_redis, tmp_path):
    settings = {"REDIS_URL": clean_redis.url, "ECHO_WORD_SECONDS": "0.05", "DATABASE_URL": f"sqlite:///{tmp_path}/chat.db"}

    check_cut([start("gunicorn", **settings), start("gunicorn", RUN_WORKER="0", **settings)])


def test_events_are_the_same_after_a_crash(start, tmp_path):
    settings = {"QUEUE_FILE": f"{tmp_path}/queue.db", "DATABASE_URL": f"sqlite:///{tmp_path}/chat.db"}
    server = start("gunicorn", **settings)
    found = [*events(post(server))]
    response_id = found[0]["response"]["id"]
    server.crash()
    server = start("gunicorn", **settings)

    for number in range(len(found)):
        assert [*events(follow(server, response_id, number))] == found[number + 1 :]
    assert stored(server, response_id) == found[-1]["response"]


def test_a_crash_in_the_middle_fails_the_response_for_every_reader(start, tmp_path):
    settings = {"QUEUE_FILE": f"{tmp_path}/queue.db", "DATABASE_URL": f"sqlite:///{tmp_path}/chat.db", "LEASE_SECONDS": "1"}
    server = start("gunicorn", ECHO_WORD_SECONDS="5", **settings)
    begun = until_text(events(post(server, background=True)))
    response_id = begun[0]["response"]["id"]
    server.crash()
    server = start("gunicorn", ECHO_WORD_SECONDS="0", **settings)

    found = [*events(follow(server, response_id))]
    assert found[: len(begun)] == begun
    assert [*events(follow(server, response_id, len(begun) - 1))] == found[len(begun) :]
    assert found[-1]["type"] == "response.failed"
    assert stored(server, response_id) == found[-1]["response"]


@pytest.fixture
def fleet(start, clean_redis, tmp_path) -> Callable[[WireServer], tuple[list[Server], Callable[[], Server]]]:
    """`fleet(model)` returns two web processes without workers, and a function that starts a worker."""

    def start_fleet(model: WireServer):
        settings = {"REDIS_URL": clean_redis.url, "LEASE_SECONDS": "1", "DATABASE_URL": f"sqlite:///{tmp_path}/chat.db"}
        settings |= {"RUN_WORKER": "0", **settings_of(model)}
        return [start("gunicorn", **settings) for _ in range(2)], lambda: start("worker", **settings)

    return start_fleet


def test_a_response_without_text_is_answered_by_another_worker(fleet):
    with WireServer([HANG], COMPLETE) as model:
        webs, start_worker = fleet(model)
        worker = start_worker()
        reply = post(webs[0], model="openai")
        assert model.wait_for(lambda: len(model.requests) == 1, DEADLINE)
        worker.crash()
        start_worker()
        found = [*events(reply)]

    assert text(found[-1]["response"]) == "one two"
    assert [*events(follow(webs[1], found[0]["response"]["id"]))] == found


def test_a_response_with_text_of_a_killed_worker_fails_for_every_reader(fleet):
    with WireServer(STUCK, COMPLETE) as model:
        webs, start_worker = fleet(model)
        worker = start_worker()
        reader = events(post(webs[0], model="openai", background=True))
        begun = until_text(reader)
        response_id = begun[0]["response"]["id"]
        other = events(follow(webs[1], response_id))
        assert until_text(other) == begun
        worker.crash()
        start_worker()
        ends = [[*reader], [*other], [*events(follow(webs[1], response_id, len(begun) - 1))]]

    assert ends[0] == ends[1] == ends[2]
    assert ends[0][-1]["type"] == "response.failed"
    assert ends[0][-1]["response"]["error"]["type"] == "interrupted"
    assert stored(webs[0], response_id) == ends[0][-1]["response"]
    assert len(model.requests) == 1


@pytest.mark.parametrize("background", [True, False])
def test_a_reader_of_a_killed_process_goes_on_in_another_one(fleet, background):
    slow = [HEAD, BEGIN, *text_deltas("one "), 1.0, *text_deltas("two"), piece({}, "stop"), DONE, LAST_CHUNK]
    with WireServer(slow) as model:
        webs, start_worker = fleet(model)
        start_worker()
        reader = events(post(webs[0], model="openai", background=background))
        begun = until_text(reader)
        webs[0].crash()
        reader.close()
        rest = [*events(follow(webs[1], begun[0]["response"]["id"], len(begun) - 1))]

    assert text(rest[-1]["response"]) == "one two"
    assert [event["sequence_number"] for event in begun + rest] == [*range(len(begun + rest))]


def test_a_client_that_disconnects_stops_the_model(start, kind, user):
    with WireServer(STUCK) as model:
        server = start(kind, **settings_of(model))
        begun = until_text(events(post(server, model="openai")))

        assert model.wait_for(lambda: model.hung_up == 1, DEADLINE)
    assert eventually(lambda: stored(server, begun[0]["response"]["id"])["status"] == "cancelled", DEADLINE)


def test_a_client_that_disconnects_does_not_stop_a_response_in_the_background(start, kind):
    server = start(kind, ECHO_WORD_SECONDS="0.05")
    response_id = next_event(post(server, background=True))["response"]["id"]

    assert eventually(lambda: stored(server, response_id)["status"] == "completed", DEADLINE)


def test_a_stop_of_the_server_ends_streams(start):
    with WireServer(STUCK) as model:
        server = start("gunicorn", DRAIN_SECONDS="1", **settings_of(model))
        found = events(post(server, model="openai"))
        until_text(found)
        server.kill(signal.SIGTERM)
        last = [*found][-1]
        assert server.process.wait(DEADLINE) == 0

    assert last["type"] in {"error", "response.failed"}


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_clients_that_leave_early_leak_nothing(start, tmp_path):
    with WireServer(*[STUCK] * CLIENTS) as model:
        settings = {**HIGH_LIMITS, "DATABASE_URL": f"sqlite:///{tmp_path}/chat.db", **settings_of(model)}
        server = start("gunicorn", MAX_RUNNING=str(CLIENTS), **settings)
        [*events(post(server, "warm up"))]
        before = server.descriptors()
        in_parallel(CLIENTS, lambda number: next_event(post(server, model="openai", background=False)), 90)

        assert eventually(lambda: server.descriptors() <= before + 5, DEADLINE), (before, server.descriptors())

    def unfinished() -> list[str]:
        lines = Browser(server).request("GET", "/metrics").read().decode().splitlines()
        return [
            line for line in lines if line.startswith(("chat_broker_running", "chat_broker_waiting")) and line[-4:] != " 0.0"
        ]

    assert eventually(lambda: not unfinished(), 60), unfinished()
