"""`flask doctor` and `flask diagnose`, run as commands: their messages and exit statuses."""

import pytest

from bff import HostLogin, create_app
from bff.api.cli.doctor import Doctor
from bff.config.settings import descriptor_limit
from bff.errors import UpstreamUnavailable
from tests.live import BASE_ENVIRONMENT, new_app, new_settings
from tests.redis_server import RedisServer
from tests.wire_server import LAST_CHUNK, UNNUMBERED, WireServer, chunk, reply, stream_head

KEY = "k" * 40
UNREACHABLE_URL = "http://127.0.0.1:1"
REFUSED = reply(b'{"detail":"no"}', "401 Unauthorized")
HEALTHY = reply(b'{"status":"healthy"}')


def run(*arguments: str, **settings: str) -> tuple[int, list[str]]:
    """Returns the exit status and the reported lines."""
    app = new_app(**settings)
    result = app.test_cli_runner().invoke(args=list(arguments))
    return result.exit_code, [line for line in result.stdout.splitlines() if line[:5] in {"ok   ", "WRONG"}]


def failures(**settings: str) -> list[str]:
    status, lines = run("doctor", **settings)
    messages = [line.removeprefix("WRONG  ") for line in lines if line.startswith("WRONG")]
    assert status == (1 if messages else 0)
    return messages


def broker(*replies: bytes) -> WireServer:
    return WireServer(*[[reply] for reply in replies], queue=None)


def test_all_checks_pass_with_default_settings():
    status, lines = run("doctor")

    assert status == 0
    assert "ok     The broker is the bundled one, in this process." in lines
    assert "ok     The engine is the bundled one, in this process." in lines
    assert {line[:5] for line in lines} == {"ok   "}


def test_an_unreachable_broker_is_reported():
    (message,) = failures(BROKER_BASE_URL=UNREACHABLE_URL, BROKER_API_KEY=KEY)

    assert message.startswith(f"The broker at {UNREACHABLE_URL} does not answer as it should (GET failed")
    assert message.endswith("see BROKER_BASE_URL.")


def test_a_broker_without_event_ids_passes():
    with broker(HEALTHY, reply(UNNUMBERED)) as server:
        assert failures(BROKER_BASE_URL=server.url, BROKER_API_KEY=KEY) == []


def test_a_broker_that_refuses_our_key_is_reported():
    with broker(HEALTHY, REFUSED) as server:
        url = server.url
        messages = failures(BROKER_BASE_URL=url, BROKER_API_KEY=KEY)

    assert messages == [f"The broker at {url} refuses our key: BROKER_API_KEY is not the one it expects."]


def test_a_broker_url_with_a_wrong_path_is_reported():
    with broker(reply(b"", "404 Not Found")) as server:
        url = server.url
        messages = failures(BROKER_BASE_URL=url, BROKER_API_KEY=KEY)

    assert messages == [f"The server at {url} is no broker: BROKER_BASE_URL must be the part of the URL before /api/v1."]


def test_an_engine_that_refuses_our_key_is_reported():
    with WireServer([REFUSED]) as server:
        url = server.url
        messages = failures(ENGINE_BASE_URL=url, ENGINE_API_KEY=KEY)

    assert messages == [f"The engine at {url} refuses our key: ENGINE_API_KEY is not the one it expects."]


def test_a_rate_limited_broker_is_reported():
    with broker(HEALTHY, reply(b"{}", "429 Too Many Requests")) as server:
        (message,) = failures(BROKER_BASE_URL=server.url, BROKER_API_KEY=KEY)

    assert "does not answer as it should (too_many_requests)" in message


def test_an_engine_that_answers_404_passes_with_a_hint():
    with WireServer([reply(b"", "404 Not Found")]) as server:
        status, lines = run("doctor", ENGINE_BASE_URL=server.url, ENGINE_API_KEY=KEY)

    assert status == 0
    assert any("knows no user flask-doctor, or is not an engine: see ENGINE_BASE_URL." in line for line in lines)


def test_an_unreachable_redis_is_reported_without_its_password():
    (message,) = failures(REDIS_URL="redis://:swordfish-of-the-deep@127.0.0.1:1/0")

    assert message.startswith("Redis cannot be reached (Redis: ConnectionError")
    assert message.endswith("see REDIS_URL.")
    assert "swordfish" not in message


@pytest.mark.servers
def test_a_redis_that_evicts_keys_is_reported(tmp_path):
    redis = RedisServer(tmp_path, "--maxmemory-policy", "allkeys-lru")
    try:
        messages = failures(REDIS_URL=redis.url)
    finally:
        redis.stop()

    assert messages == ["Redis may evict replies: its maxmemory-policy is allkeys-lru and must be noeviction."]


def test_a_suitable_redis_passes(clean_redis):
    assert failures(REDIS_URL=clean_redis.url) == []


def test_more_streams_than_descriptors_are_reported():
    limit = descriptor_limit()

    (message,) = failures(MAX_STREAMS=str(limit))

    assert message.startswith(f"MAX_STREAMS={limit} may need {limit + 400} file descriptors")
    assert message.endswith(f"may have {limit}: lower it, or raise the limit (ulimit -n).")


def test_several_processes_without_redis_are_reported():
    expected = ["WEB_CONCURRENCY has no effect: without REDIS_URL the queue is in the memory of one process."]
    external = {"BROKER_BASE_URL": "http://127.0.0.1:9", "BROKER_API_KEY": "k" * 32}

    assert failures(WEB_CONCURRENCY="3") == expected
    assert set(expected) <= set(failures(WEB_CONCURRENCY="3", **external))


def test_a_failing_probe_is_reported_by_name():
    app = new_app()

    def fail() -> None:
        raise UpstreamUnavailable(detail="It lacks tables")

    parts = app.extensions["chat_bff"]
    results = Doctor(parts.settings, parts.broker, parts.engine, {"broker": fail, "database": fail}).results()

    assert [message for ok, message in results if not ok] == ["The database cannot be used. It lacks tables."]


def test_development_lists_what_production_would_refuse(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # Development writes a generated key to the current directory.
    _, lines = run("doctor", SECRET_KEY="", AUTH_MODE="", AUTH_PROXY_SECRET="")

    assert any(line.startswith("ok     Production would refuse to start: AUTH_MODE is required") for line in lines)
    assert "ok     Production would refuse to start: SECRET_KEY is required in production, 32 bytes at least." in lines


def test_an_application_with_its_own_login_needs_no_auth_mode(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    app = create_app(new_settings(SECRET_KEY="", AUTH_MODE="", AUTH_PROXY_SECRET=""), authenticator=HostLogin(lambda: "ann"))

    lines = app.test_cli_runner().invoke(args=["chat", "doctor"]).stdout.splitlines()

    refusals = [line for line in lines if "Production would refuse to start" in line]
    assert refusals == ["ok     Production would refuse to start: SECRET_KEY is required in production, 32 bytes at least."]


def test_changed_settings_are_listed_without_secrets():
    _, lines = run("doctor", METRICS_TOKEN="swordfish-of-the-deep", CLIENT_ID="tests")

    assert "CLIENT_ID=tests" in lines[0]
    assert "METRICS_TOKEN (a secret)" in lines[0]
    assert "MAX_STREAMS" not in lines[0]
    assert "LOG_LEVEL" not in lines[0]
    assert not any("swordfish" in line or BASE_ENVIRONMENT["SECRET_KEY"] in line for line in lines)


def test_changed_settings_are_listed_as_they_are_set():
    _, lines = run(
        "doctor", RELAY_REASONING="0", HEARTBEAT_SECONDS="20", CORS_ALLOW_ORIGINS="https://a.example,https://b.example"
    )

    assert "RELAY_REASONING=0," in lines[0]
    assert "HEARTBEAT_SECONDS=20," in lines[0]
    assert "CORS_ALLOW_ORIGINS=https://a.example,https://b.example" in lines[0]


def test_diagnose_reports_a_buffering_proxy():
    ticks = b"".join(f'data: {{"type":"tick","elapsed_ms":{number * 200}}}\n\n'.encode() for number in range(10))

    with WireServer([stream_head()], [stream_head(), chunk(ticks), LAST_CHUNK]) as proxy:
        status, lines = run("diagnose", proxy.url)

    assert status == 1
    assert lines[0] == "WRONG  10 of 10 ticks arrived together: a proxy buffers the stream."


@pytest.mark.parametrize(("url", "status"), [(UNREACHABLE_URL, 1), ("nonsense", 2)])
def test_diagnose_fails_for_an_unusable_url(url, status):
    assert run("diagnose", url)[0] == status


def test_the_address_to_listen_on_is_tried():
    assert "ok     The server listens on 127.0.0.1:8001." in run("doctor", PORT="8001")[1]
    assert failures(HOST="192.0.2.1") == ["HOST=192.0.2.1 is not an address of this machine (Cannot assign requested address)."]
