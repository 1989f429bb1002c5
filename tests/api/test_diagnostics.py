import json
import threading

from bff.api import diagnostics
from tests.live import eventually, new_app


def test_ten_timed_ticks_are_sent_without_authentication():
    response = new_app().test_client().get("/api/diagnostics/stream")

    ticks = [json.loads(line.removeprefix("data: ")) for line in response.text.splitlines() if line]
    assert [(tick["type"], tick["number"], tick["of"]) for tick in ticks] == [("tick", n, 10) for n in range(1, 11)]
    assert all(tick["elapsed_ms"] >= 200 * n - 10 for n, tick in enumerate(ticks))
    assert ticks[-1]["sent_ms"] - ticks[0]["sent_ms"] >= 1700
    assert response.headers["X-Accel-Buffering"] == "no"


def test_diagnostics_streams_share_one_users_limit():
    client = new_app(MAX_STREAMS_PER_USER="2").test_client()
    open_streams = [client.get("/api/diagnostics/stream") for _ in range(2)]

    assert client.get("/api/diagnostics/stream").status_code == 429
    for response in open_streams:
        response.close()
    with client.get("/api/diagnostics/stream") as response:
        assert response.status_code == 200


def test_a_drain_ends_the_stream(caplog, monkeypatch):
    monkeypatch.setattr(diagnostics, "TICK_SECONDS", 3600.0)
    app = new_app(DRAIN_SECONDS="0.1")
    response = app.test_client().get("/api/diagnostics/stream")
    frames = iter(response.response)
    next(frames)
    draining = threading.Thread(target=app.extensions["chat_bff"].lifecycle.drain)
    draining.start()
    assert eventually(lambda: app.extensions["chat_bff"].streams.draining, 15)

    assert list(frames) == []
    draining.join(20)
    assert "broke" not in caplog.text
