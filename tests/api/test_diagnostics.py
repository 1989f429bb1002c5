import json
import threading

from bff.api import diagnostics
from tests.live import eventually, new_app


def test_anybody_gets_ten_ticks_each_with_the_moment_it_was_sent():
    response = new_app().test_client().get("/api/diagnostics/stream")

    ticks = [json.loads(line.removeprefix("data: ")) for line in response.text.splitlines() if line]
    assert [(tick["type"], tick["number"], tick["of"]) for tick in ticks] == [("tick", n, 10) for n in range(1, 11)]
    assert all(tick["elapsed_ms"] >= 200 * n - 10 for n, tick in enumerate(ticks))
    assert ticks[-1]["sent_ms"] - ticks[0]["sent_ms"] >= 1700
    assert response.headers["X-Accel-Buffering"] == "no"


def test_those_who_diagnose_take_no_more_places_than_one_user():
    client = new_app(MAX_STREAMS_PER_USER="2").test_client()
    held = [client.get("/api/diagnostics/stream") for _ in range(2)]

    assert client.get("/api/diagnostics/stream").status_code == 429
    for response in held:
        response.close()
    with client.get("/api/diagnostics/stream") as response:
        assert response.status_code == 200


def test_a_drain_does_not_wait_for_the_last_tick(caplog, monkeypatch):
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
