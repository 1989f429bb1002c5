"""The sentences by which somebody finds out at three in the morning what is wrong."""

import pytest

from bff.api.cli.doctor import Doctor
from bff.config.settings import descriptor_limit
from bff.errors import UpstreamUnavailable
from tests.live import BASE_ENVIRONMENT, new_app
from tests.redis_server import RedisServer
from tests.wire_server import LAST_CHUNK, UNNUMBERED, WireServer, chunk, reply, stream_head

KEY = "k" * 40
NOWHERE = "http://127.0.0.1:1"
REFUSED = reply(b'{"detail":"no"}', "401 Unauthorized")
HEALTHY = reply(b'{"status":"healthy"}')


def run(*arguments: str, **settings: str) -> tuple[int, list[str]]:
    """Its exit status and its lines."""
    app = new_app(**settings)
    result = app.test_cli_runner().invoke(args=list(arguments))
    return result.exit_code, [line for line in result.stdout.splitlines() if line[:5] in {"ok   ", "WRONG"}]


def wrong(**settings: str) -> list[str]:
    status, lines = run("doctor", **settings)
    found = [line.removeprefix("WRONG  ") for line in lines if line.startswith("WRONG")]
    assert status == (1 if found else 0)
    return found


def broker(*answers: bytes) -> WireServer:
    return WireServer(*[[answer] for answer in answers], queue=None)


def test_a_set_up_without_a_fault_is_said_to_be_fine():
    status, lines = run("doctor")

    assert status == 0
    assert "ok     The broker is the bundled one, in this process." in lines
    assert {line[:5] for line in lines} == {"ok   "}


def test_a_broker_that_is_not_there():
    (message,) = wrong(BROKER_BASE_URL=NOWHERE, BROKER_API_KEY=KEY)

    assert message.startswith(f"The broker at {NOWHERE} does not answer as it should (GET failed")
    assert message.endswith("see BROKER_BASE_URL.")


def test_a_broker_that_does_not_number_its_events_is_none_the_worse():
    with broker(HEALTHY, reply(UNNUMBERED)) as server:
        assert wrong(BROKER_BASE_URL=server.url, BROKER_API_KEY=KEY) == []


def test_a_broker_that_refuses_our_key():
    with broker(HEALTHY, REFUSED) as server:
        url = server.url
        found = wrong(BROKER_BASE_URL=url, BROKER_API_KEY=KEY)

    assert found == [f"The broker at {url} refuses our key: BROKER_API_KEY is not the one it wants."]


def test_a_broker_at_another_path():
    with broker(reply(b"", "404 Not Found")) as server:
        url = server.url
        found = wrong(BROKER_BASE_URL=url, BROKER_API_KEY=KEY)

    assert found == [f"What answers at {url} is no broker: BROKER_BASE_URL should be what comes before /api/v1."]


def test_an_engine_that_refuses_our_key():
    with WireServer([REFUSED]) as server:
        url = server.url
        found = wrong(ENGINE_BASE_URL=url, ENGINE_API_KEY=KEY)

    assert found == [f"The engine at {url} refuses our key: ENGINE_API_KEY is not the one it wants."]


def test_a_broker_that_is_asked_too_often():
    with broker(HEALTHY, reply(b"{}", "429 Too Many Requests")) as server:
        (message,) = wrong(BROKER_BASE_URL=server.url, BROKER_API_KEY=KEY)

    assert "does not answer as it should (too_many_requests)" in message


def test_an_engine_that_may_be_none():
    with WireServer([reply(b"", "404 Not Found")]) as server:
        status, lines = run("doctor", ENGINE_BASE_URL=server.url, ENGINE_API_KEY=KEY)

    assert status == 0
    assert any("knows no user flask-doctor, or is no engine: see ENGINE_BASE_URL." in line for line in lines)


def test_a_redis_that_is_not_there():
    (message,) = wrong(REDIS_URL="redis://:swordfish-of-the-deep@127.0.0.1:1/0")

    assert message.startswith("Redis cannot be reached (Redis: ConnectionError")
    assert message.endswith("see REDIS_URL.")
    assert "swordfish" not in message


@pytest.mark.servers
def test_a_redis_that_throws_answers_away(tmp_path):
    redis = RedisServer(tmp_path, "--maxmemory-policy", "allkeys-lru")
    try:
        found = wrong(REDIS_URL=redis.url)
    finally:
        redis.stop()

    assert found == ["Redis may throw answers away: its maxmemory-policy is allkeys-lru, and has to be noeviction."]


def test_a_redis_that_will_do(clean_redis):
    assert wrong(REDIS_URL=clean_redis.url) == []


def test_more_streams_than_there_are_descriptors():
    most = descriptor_limit()

    (message,) = wrong(MAX_STREAMS=str(most))

    assert message.startswith(f"MAX_STREAMS={most} may need {most + 400} file descriptors")
    assert message.endswith(f"may have {most}: lower it, or raise the limit (ulimit -n).")


def test_several_processes_without_a_queue_that_they_share():
    nothing = ["WEB_CONCURRENCY does nothing: without REDIS_URL the queue is in one process's memory."]

    assert wrong(WEB_CONCURRENCY="3") == nothing
    away = {"BROKER_BASE_URL": "http://127.0.0.1:9", "BROKER_API_KEY": "k" * 32}
    assert set(nothing) <= set(wrong(WEB_CONCURRENCY="3", **away))


def test_what_else_can_be_away_is_asked_and_named():
    app = new_app()

    def away() -> None:
        raise UpstreamUnavailable(detail="no such table")

    parts = app.extensions["chat_bff"]
    found = Doctor(parts.settings, parts.broker, parts.engine, {"broker": away, "database": away}).findings()

    assert [message for ok, message in found if not ok] == ["The database does not answer (no such table)."]


def test_development_is_told_what_production_would_not_forgive(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # Where it keeps a key of its own.
    _, lines = run("doctor", SECRET_KEY="", AUTH_MODE="", AUTH_PROXY_SECRET="")

    assert any(line.startswith("ok     Production would refuse to start: AUTH_MODE is required") for line in lines)
    assert "ok     Production would refuse to start: SECRET_KEY is required in production, 32 bytes at least." in lines


def test_settings_are_shown_and_secrets_are_not():
    _, lines = run("doctor", METRICS_TOKEN="swordfish-of-the-deep", CLIENT_ID="tests")

    assert "CLIENT_ID=tests" in lines[0]
    assert "METRICS_TOKEN (a secret)" in lines[0]
    assert "MAX_STREAMS" not in lines[0]
    assert "LOG_LEVEL" not in lines[0]
    assert not any("swordfish" in line or BASE_ENVIRONMENT["SECRET_KEY"] in line for line in lines)


def test_a_stream_that_is_held_back_is_found_from_the_command_line():
    ticks = b"".join(f'data: {{"type":"tick","elapsed_ms":{number * 200}}}\n\n'.encode() for number in range(10))

    with WireServer([stream_head()], [stream_head(), chunk(ticks), LAST_CHUNK]) as proxy:
        status, lines = run("diagnose", proxy.url)

    assert status == 1
    assert lines[0] == "WRONG  10 of 10 ticks came together: something on the way holds the stream back."


@pytest.mark.parametrize(("url", "status"), [(NOWHERE, 1), ("nonsense", 2)])
def test_a_url_that_leads_nowhere_is_said_to(url, status):
    assert run("diagnose", url)[0] == status
