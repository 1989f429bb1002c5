import re

import pytest

from bff.broker.app import built
from bff.config.environment import load_settings
from tests.live import BROKER_KEY, new_app, who
from tests.ops.numbers import numbers
from tests.wire_server import CUT, WireServer, reply

ADA = who("ada-whose-name-is-hers")
TOKEN = "token-of-whoever-scrapes"
PRODUCTION = {"APP_ENV": "production"}


def new_client(**settings: str):
    return new_app(**settings).test_client(use_cookies=False)


def counted(client) -> dict[str, float]:
    return numbers(client.get("/metrics").text)


class Difference:
    """What has been added by what was done since."""

    def __init__(self, client) -> None:
        self._client = client
        self._before = counted(client)

    def of(self, *names: str) -> list[float]:
        now = counted(self._client)
        return [now.get(name, 0) - self._before.get(name, 0) for name in names]


@pytest.fixture
def client():
    return new_client()


def test_a_stream_is_counted_when_it_is_over(client):
    added = Difference(client)

    with client.post("/api/chat/stream", json={"message": "one two three"}, headers=ADA) as response:
        assert counted(client)["chat_streams_open{kind=chat}"] >= 1
        size = len(response.data)

    assert added.of("chat_streams_open{kind=chat}", "chat_streams_started_total{how=said,kind=chat}") == [0, 1]
    assert added.of("chat_streams_ended_total{ended=complete,kind=chat}", "chat_stream_events_total") == [1, 6]
    assert added.of("chat_stream_bytes_total") == [size]
    assert added.of("chat_stream_first_event_seconds_count", "chat_stream_duration_seconds_count") == [1, 1]
    assert added.of("chat_enqueue_seconds_count") == [1]


def test_an_answer_is_counted_by_whoever_gave_it(client):
    added = Difference(client)

    client.post("/api/chat/stream", json={"message": "hello"}, headers=ADA).close()
    client.post("/api/chat/stream", json={"message": "hello"}, headers=ADA).get_data()

    assert added.of("chat_broker_queue_wait_seconds_count") == [2]
    sizes = counted(client)
    assert (sizes["chat_broker_running"], sizes["chat_broker_waiting"]) == (0, 0)


def test_what_runs_and_what_waits_is_seen(client):
    held = [client.post("/api/chat/stream", json={"message": "/silence 3600"}, headers=ADA) for _ in range(3)]

    sizes = counted(client)

    assert (sizes["chat_broker_running"], sizes["chat_broker_waiting"]) == (1, 2)
    for response in held:
        client.post(f"{response.headers['Location']}/stop", headers=ADA)
        response.close()


def test_a_reader_that_comes_back_is_counted_with_what_it_is_told_again(client):
    with client.post("/api/chat/stream", json={"message": "one two"}, headers=ADA) as response:
        events = response.text.count("data: ")
    added = Difference(client)

    client.get(response.headers["Location"], headers=ADA).get_data()

    assert added.of("chat_streams_started_total{how=resumed,kind=chat}", "chat_stream_replayed_events_total") == [1, events]


def test_a_refusal_is_counted_by_its_code():
    client = new_client(MESSAGES_PER_MINUTE="1")
    added = Difference(client)

    for _ in range(3):
        client.post("/api/chat", json={"message": "hello"}, headers=ADA)
    client.get("/api/preferences")

    codes = ["too_many_requests", "forbidden"]
    assert added.of(*(f"chat_requests_refused_total{{code={code}}}" for code in codes)) == [2, 1]


@pytest.mark.parametrize(("answer", "code"), [(CUT, "upstream_unavailable"), (reply(b"nonsense"), "upstream_error")])
def test_a_service_that_fails_is_counted_by_its_name_and_the_code(answer, code):
    with WireServer([answer]) as server:
        client = new_client(ENGINE_BASE_URL=server.url, ENGINE_API_KEY="k" * 32)
        added = Difference(client)

        client.get("/api/preferences", headers=ADA)

        assert added.of(f"chat_upstream_errors_total{{code={code},upstream=engine}}") == [1]


def test_a_drain_is_seen():
    client = new_client(DRAIN_SECONDS="0.3")
    added = Difference(client)
    left = client.post("/api/chat/stream", json={"message": "/silence 3600"}, headers=ADA)

    client.application.extensions["chat_bff"].lifecycle.drain()
    left.get_data()

    assert added.of("chat_streams_ended_total{ended=server_restarting,kind=chat}", "chat_streams_open{kind=chat}") == [1, 0]


def test_no_label_holds_what_is_a_users(client):
    client.post("/api/chat/stream", json={"message": "a-word-of-hers"}, headers=ADA).get_data()

    shown = client.get("/metrics").text

    assert not re.search(r"whose-name|a-word-of|[0-9a-f]{32}", shown)


@pytest.mark.parametrize("shown", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer ä"])
@pytest.mark.parametrize("environment", [{}, PRODUCTION], ids=["development", "production"])
def test_a_token_is_asked_for_where_there_is_one(environment, shown):
    client = new_client(METRICS_TOKEN=TOKEN, **environment)

    assert client.get("/metrics", headers={"Authorization": shown}).status_code == 401
    assert client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_without_a_token_production_shows_nothing():
    response = new_client(**PRODUCTION).get("/metrics", headers={"Authorization": "Bearer "})

    assert (response.status_code, response.json["code"]) == (404, "not_found")


def test_a_broker_on_a_port_of_its_own_shows_its_numbers_too():
    settings = load_settings({"METRICS_TOKEN": TOKEN}, neighbour=True)
    broker = built(settings, BROKER_KEY).test_client()

    assert broker.get("/metrics", headers={"X-API-Key": BROKER_KEY}).status_code == 401
    shown = numbers(broker.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text)
    assert shown["chat_broker_waiting"] == 0
