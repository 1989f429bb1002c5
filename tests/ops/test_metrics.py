import re

import pytest

from bff.broker.app import build_broker
from bff.config.environment import load_settings
from tests.live import BROKER_KEY, new_app, who
from tests.ops.numbers import numbers
from tests.wire_server import CUT, WireServer, reply

ADA = who("ada-whose-name-is-hers")
TOKEN = "token-of-the-scraper"
PRODUCTION = {"APP_ENV": "production"}


def new_client(**settings: str):
    return new_app(**settings).test_client(use_cookies=False)


def metric_values(client) -> dict[str, float]:
    return numbers(client.get("/metrics").text)


class Difference:
    """How much metrics have increased since it was created."""

    def __init__(self, client) -> None:
        self._client = client
        self._before = metric_values(client)

    def of(self, *names: str) -> list[float]:
        now = metric_values(self._client)
        return [now.get(name, 0) - self._before.get(name, 0) for name in names]


@pytest.fixture
def client():
    return new_client()


def test_a_stream_is_counted_at_its_end(client):
    added = Difference(client)

    with client.post("/api/chat/stream", json={"message": "one two three"}, headers=ADA) as response:
        assert metric_values(client)["chat_streams_open{kind=chat}"] >= 1
        size = len(response.data)

    assert added.of("chat_streams_open{kind=chat}", "chat_streams_started_total{how=said,kind=chat}") == [0, 1]
    assert added.of("chat_streams_ended_total{ended=complete,kind=chat}", "chat_stream_events_total") == [1, 6]
    assert added.of("chat_stream_bytes_total") == [size]
    assert added.of("chat_stream_first_event_seconds_count", "chat_stream_duration_seconds_count") == [1, 1]
    assert added.of("chat_enqueue_seconds_count") == [1]


def test_the_broker_counts_replies_and_its_queue(client):
    added = Difference(client)

    client.post("/api/chat/stream", json={"message": "hello"}, headers=ADA).close()
    client.post("/api/chat/stream", json={"message": "hello"}, headers=ADA).get_data()

    assert added.of("chat_broker_queue_wait_seconds_count") == [2]
    sizes = metric_values(client)
    assert (sizes["chat_broker_running"], sizes["chat_broker_waiting"], sizes["chat_webhooks_undelivered"]) == (0, 0, 0)


def test_running_and_waiting_messages_are_exported(client):
    responses = [client.post("/api/chat/stream", json={"message": "/silence 3600"}, headers=ADA) for _ in range(3)]

    sizes = metric_values(client)

    assert (sizes["chat_broker_running"], sizes["chat_broker_waiting"]) == (1, 2)
    for response in responses:
        client.post(f"{response.headers['Location']}/stop", headers=ADA)
        response.close()


def test_a_resumed_stream_counts_its_replayed_events(client):
    with client.post("/api/chat/stream", json={"message": "one two"}, headers=ADA) as response:
        events = response.text.count("data: ")
    added = Difference(client)

    client.get(response.headers["Location"], headers=ADA).get_data()

    assert added.of("chat_streams_started_total{how=resumed,kind=chat}", "chat_stream_replayed_events_total") == [1, events]


def test_error_responses_are_counted_by_code():
    client = new_client(MESSAGES_PER_MINUTE="1")
    added = Difference(client)

    for _ in range(3):
        client.post("/api/chat", json={"message": "hello"}, headers=ADA)
    client.get("/api/preferences")

    codes = ["too_many_requests", "forbidden"]
    assert added.of(*(f"chat_requests_refused_total{{code={code}}}" for code in codes)) == [2, 1]


@pytest.mark.parametrize(("steps", "code"), [(CUT, "upstream_unavailable"), (reply(b"nonsense"), "upstream_error")])
def test_upstream_errors_are_counted_by_service_and_code(steps, code):
    with WireServer([steps]) as server:
        client = new_client(ENGINE_BASE_URL=server.url, ENGINE_API_KEY="k" * 32)
        added = Difference(client)

        client.get("/api/preferences", headers=ADA)

        assert added.of(f"chat_upstream_errors_total{{code={code},upstream=engine}}") == [1]


def test_streams_ended_by_a_drain_are_counted():
    client = new_client(DRAIN_SECONDS="0.3")
    added = Difference(client)
    stream = client.post("/api/chat/stream", json={"message": "/silence 3600"}, headers=ADA)

    client.application.extensions["chat_bff"].lifecycle.drain()
    stream.get_data()

    assert added.of("chat_streams_ended_total{ended=server_restarting,kind=chat}", "chat_streams_open{kind=chat}") == [1, 0]


def test_metrics_contain_no_user_data(client):
    client.post("/api/chat/stream", json={"message": "a-word-of-hers"}, headers=ADA).get_data()

    shown = client.get("/metrics").text

    assert not re.search(r"whose-name|a-word-of|[0-9a-f]{32}", shown)


@pytest.mark.parametrize("shown", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer ä"])
@pytest.mark.parametrize("settings", [{}, PRODUCTION], ids=["development", "production"])
def test_a_configured_token_is_required(settings, shown):
    client = new_client(METRICS_TOKEN=TOKEN, **settings)

    assert client.get("/metrics", headers={"Authorization": shown}).status_code == 401
    assert client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_production_without_a_token_hides_the_metrics():
    response = new_client(**PRODUCTION).get("/metrics", headers={"Authorization": "Bearer "})

    assert (response.status_code, response.json["code"]) == (404, "not_found")


def test_a_standalone_broker_exports_metrics():
    settings = load_settings({"METRICS_TOKEN": TOKEN}, backend_only=True)
    broker = build_broker(settings, BROKER_KEY).test_client()

    assert broker.get("/metrics", headers={"X-API-Key": BROKER_KEY}).status_code == 401
    shown = numbers(broker.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text)
    assert shown["chat_broker_waiting"] == 0
