import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from bff.config.environment import load_settings
from bff.config.settings import Settings, streams_by_descriptors
from tests.live import ROOT, in_parallel
from tests.refusal import refusal

KIB, MIB = 1024, 1024 * 1024
SECRET = "s" * 32
PRODUCTION = {"AUTH_MODE": "anonymous", "SECRET_KEY": SECRET}

DEFAULTS = {
    "APP_ENV": "production",
    "PORT": 8000,
    "WEB_CONCURRENCY": 1,
    "BROKER_BASE_URL": "",
    "BROKER_API_KEY": "",
    "ENGINE_BASE_URL": "",
    "ENGINE_API_KEY": "",
    "REDIS_URL": "",
    "REDIS_TLS_VERIFY": True,
    "LEASE_SECONDS": 10.0,
    "RUN_WORKER": True,
    "DATABASE_URL": "sqlite:///instance/chat.db",
    "QUEUE_FILE": "instance/queue.db",
    "OPENAI_BASE_URL": "",
    "OPENAI_API_KEY": "",
    "OPENAI_MODEL": "gpt-4o-mini",
    "CLIENT_ID": "web",
    "DEFAULT_ORG": "default",
    "ORG_MAP_FILE": "",
    "AUTH_PROXY_USER_HEADER": "X-Forwarded-User",
    "AUTH_PROXY_SECRET": "",
    "AUTH_JWT_COOKIE": "",
    "AUTH_JWT_SECRET": "",
    "AUTH_JWT_JWKS_URL": "",
    "AUTH_JWT_AUDIENCE": "",
    "AUTH_JWT_ISSUER": "",
    "AUTH_JWT_USER_CLAIM": "sub",
    "AUTH_JWT_ORG_CLAIM": "org",
    "CORS_ALLOW_ORIGINS": (),
    "TRUSTED_PROXY_HOPS": 0,
    "DYNO": "",
    "HEARTBEAT_SECONDS": 15,
    "HEARTBEAT": "event",
    "UPSTREAM_CONNECT_SECONDS": 5,
    "UPSTREAM_OPEN_SECONDS": 20,
    "UPSTREAM_READ_SECONDS": 45,
    "ENGINE_SECONDS": 120,
    "ANSWER_MAX_SECONDS": 600,
    "MAX_EVENT_BYTES": 16 * MIB,
    "MAX_BODY_BYTES": 36 * MIB,
    "MAX_STREAMS": streams_by_descriptors(1, 200),
    "QUEUE_DEPTH_PER_USER": 20,
    "MAX_RUNNING": 200,
    "MAX_STREAMS_PER_USER": 32,
    "MESSAGES_PER_MINUTE": 60,
    "REQUEST_SECONDS": 30.0,
    "SLOW_READER_SECONDS": 60.0,
    "DRAIN_SECONDS": 20.0,
    "LOG_MAX_BYTES": 32 * MIB,
    "RETENTION_SECONDS": 600,
    "ENGINE_REPEATABLE": False,
    "ON_BUSY": "enqueue",
    "ON_DISCONNECT": "continue",
    "DEFAULT_AGENT": "",
    "CONVERSATION_ON_DISCONNECT": "cancel",
    "KEEP_STOPPED": False,
    "HISTORY_CHARACTERS": 200_000,
    "EXPOSE_UPSTREAM_ERRORS": False,
    "RELAY_TOOL_EVENTS": True,
    "ECHO_WORD_SECONDS": 0.03,
    "METRICS_TOKEN": "",
    "PROMETHEUS_MULTIPROC_DIR": "",
    "LOG_LEVEL": "INFO",
    "LOG_FORMAT": "json",
}


def read(**environment: str) -> Settings:
    return load_settings(PRODUCTION | environment)


def by_name(settings: Settings) -> dict:
    return {field.metadata["name"]: getattr(settings, field.name) for field in fields(settings)}


def test_unset_settings_have_their_defaults():
    assert by_name(read()) == DEFAULTS | PRODUCTION


def test_development_needs_no_settings():
    settings = load_settings({"APP_ENV": "development"})

    own = {"APP_ENV": "development", "AUTH_MODE": "", "SECRET_KEY": "", "LOG_FORMAT": "text"}
    assert by_name(settings) == DEFAULTS | own
    assert settings.development
    assert not read().development


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("PORT", "0", 0),
        ("PORT", "65535", 65535),
        ("PORT", " 8080 ", 8080),
        ("HEARTBEAT_SECONDS", "0.25", 0.25),
        ("ECHO_WORD_SECONDS", "0", 0),
        ("EXPOSE_UPSTREAM_ERRORS", "1", True),
        ("RELAY_TOOL_EVENTS", "0", False),
        ("ENGINE_REPEATABLE", "1", True),
        ("ON_BUSY", "interrupt", "interrupt"),
        ("MAX_STREAMS", "5", 5),
        ("BROKER_BASE_URL", "https://broker.example:8443/example/path/", "https://broker.example:8443/example/path"),
        ("ENGINE_BASE_URL", "http://[::1]:9000", "http://[::1]:9000"),
        ("DEFAULT_ORG", "Μετάφρασις", "Μετάφρασις"),
        ("LOG_FORMAT", "text", "text"),
        ("REDIS_URL", "rediss://:secret@redis.example:6380/0", "rediss://:secret@redis.example:6380/0"),
        ("REDIS_URL", "unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("LOG_FORMAT", "json", "json"),
        ("AUTH_JWT_JWKS_URL", "https://id.example/keys?p=a%20b", "https://id.example/keys?p=a%20b"),
        ("CORS_ALLOW_ORIGINS", "https://a.example, HTTP://localhost:3000,", ("https://a.example", "http://localhost:3000")),
    ],
)
def test_settings_are_parsed(name, text, value):
    assert by_name(load_settings({"APP_ENV": "development", name: text}))[name] == value


@pytest.mark.parametrize("name", DEFAULTS)
def test_an_empty_value_counts_as_unset(name):
    assert by_name(read(**{name: ""}))[name] == DEFAULTS[name]
    assert by_name(read(**{name: "  "}))[name] == DEFAULTS[name]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("HEARTBEAT_SECONDS", "soon", "is not a number"),
        ("HEARTBEAT_SECONDS", "15s", "is not a number"),
        ("HEARTBEAT_SECONDS", "1e3", "is not a number"),
        ("HEARTBEAT_SECONDS", "nan", "is not a number"),
        ("HEARTBEAT_SECONDS", "inf", "is not a number"),
        ("HEARTBEAT_SECONDS", "-1", "is not a number"),
        ("HEARTBEAT_SECONDS", "1\n2", "is not a number"),
        ("HEARTBEAT_SECONDS", "0", "is not above zero"),
        ("HEARTBEAT_SECONDS", "0.0", "is not above zero"),
        ("ECHO_WORD_SECONDS", "slowly", "is not a number"),
        ("PORT", "http", "is not a whole number"),
        ("PORT", "8000.5", "is not a whole number"),
        ("PORT", "٨٠٠٠", "is not a whole number"),
        ("PORT", "9" * 5000, "is not a whole number"),
        ("PORT", "-1", "is not between 0 and 65535"),
        ("PORT", "65536", "is not between 0 and 65535"),
        ("WEB_CONCURRENCY", "0", "is not between 1 and 256"),
        ("MAX_STREAMS", "0", f"is not between 1 and {2**40}"),
        ("MAX_BODY_BYTES", "1", f"is not between 1024 and {2**40}"),
        ("RELAY_TOOL_EVENTS", "yes", "is neither 0 nor 1"),
        ("APP_ENV", "staging", "is none of production, development"),
        ("AUTH_MODE", "none", "is none of anonymous, proxy, jwt"),
        ("HEARTBEAT", "ping", "is none of event, comment"),
        ("ON_BUSY", "wait", "is none of enqueue, reject, interrupt"),
        ("ON_DISCONNECT", "stop", "is none of continue, cancel"),
        ("LOG_LEVEL", "info", "is none of DEBUG, INFO, WARNING, ERROR"),
        ("LOG_FORMAT", "xml", "is none of json, text"),
        ("AUTH_PROXY_USER_HEADER", "X Forwarded", "is not a header's name"),
        ("AUTH_PROXY_USER_HEADER", "X-User\r\nX-Admin", "is not a header's name"),
        ("AUTH_JWT_COOKIE", "a b", "is not a cookie's name"),
        ("AUTH_JWT_JWKS_URL", "id.example/keys", "is not an http(s) URL"),
        ("AUTH_JWT_JWKS_URL", "https://id.example/a b", "is not an http(s) URL"),
        ("AUTH_JWT_JWKS_URL", "https://id.example/keys#1", "holds more than scheme, host, port and path"),
        ("CORS_ALLOW_ORIGINS", "*", "is not a list of origins like https://chat.example"),
        ("CORS_ALLOW_ORIGINS", "null", "is not a list of origins like https://chat.example"),
        ("CORS_ALLOW_ORIGINS", "https://a.example/path", "is not a list of origins like https://chat.example"),
        ("TRUSTED_PROXY_HOPS", "-1", "is not between 0 and 16"),
        ("BROKER_BASE_URL", "broker:8080", "is not an http(s) URL"),
        ("BROKER_BASE_URL", "ftp://broker", "is not an http(s) URL"),
        ("BROKER_BASE_URL", "//broker", "is not an http(s) URL"),
        ("BROKER_BASE_URL", "http://", "is not an http(s) URL"),
        ("BROKER_BASE_URL", "http://:8080", "is not an http(s) URL"),
        ("BROKER_BASE_URL", "http://bro ker", "is not an http(s) URL"),
        ("BROKER_BASE_URL", "http://brökér", "is not an http(s) URL"),
        ("DEFAULT_ORG", "a/b", "holds a slash"),
        ("ENGINE_BASE_URL", "http://engine?key=1", "holds more than scheme, host, port and path"),
        ("ENGINE_BASE_URL", "http://engine#top", "holds more than scheme, host, port and path"),
    ],
)
def test_an_invalid_value_is_refused_with_its_name_and_the_reason(name, text, reason):
    assert refusal(PRODUCTION | {name: text}) == f"{name}={text!r} {reason}."


@pytest.mark.parametrize(
    "url", ["http://user@engine", "http://user:pw@engine", "http://:pw@engine", "http://engine:port", "http://engine:99999"]
)
def test_a_url_with_credentials_or_an_invalid_port_is_refused(url):
    assert refusal(PRODUCTION | {"ENGINE_BASE_URL": url}).startswith("ENGINE_BASE_URL=")


def test_the_password_of_a_refused_url_is_not_shown():
    message = refusal(PRODUCTION | {"BROKER_BASE_URL": "https://user:pa/ss@broker.example"})

    assert message.startswith("BROKER_BASE_URL='https://…@broker.example' ")


def test_external_services_halve_the_default_of_max_streams():
    def max_streams(**services: str) -> int:
        return load_settings(PRODUCTION | services).max_streams

    url = {"OPENAI_BASE_URL": "https://models.example/v1", "OPENAI_API_KEY": "k"}
    assert max_streams(**url) == max_streams(ENGINE_BASE_URL="https://engine.example", ENGINE_API_KEY="k") < max_streams()


def test_a_malformed_url_is_refused():
    assert refusal(PRODUCTION | {"ENGINE_BASE_URL": "http://[::1"}).startswith("ENGINE_BASE_URL='http://[::1' ")


def test_valid_proxy_settings_are_accepted():
    settings = read(AUTH_MODE="proxy", AUTH_PROXY_SECRET=SECRET, AUTH_PROXY_USER_HEADER="X-User")

    assert (settings.auth_mode, settings.auth_proxy_secret, settings.auth_proxy_user_header) == ("proxy", SECRET, "X-User")


@pytest.mark.parametrize("environment", [{}, {"AUTH_MODE": "anonymous"}, {"AUTH_MODE": "proxy"}])
def test_a_process_without_browsers_needs_no_authentication_settings(environment):
    settings = load_settings(environment, neighbour=True)

    assert not settings.development
    assert settings.log_format == "json"


@pytest.mark.parametrize("app_env", [{}, {"APP_ENV": ""}])
def test_the_flask_command_implies_development(app_env):
    assert load_settings({"FLASK_RUN_FROM_CLI": "true"} | app_env).development


@pytest.mark.parametrize(
    "environment", [{"APP_ENV": "production", "FLASK_RUN_FROM_CLI": "true"}, {"FLASK_RUN_FROM_CLI": "false"}]
)
def test_app_env_overrides_the_flask_command(environment):
    assert not load_settings(PRODUCTION | environment).development


URLS = {"REDIS_URL": "redis://:{}@redis.example/0", "DATABASE_URL": "postgresql://chat:{}@database.example/chat"}
"""Secrets that must be URLs."""


def example(name: str, text: str = "k" * 40) -> str:
    return URLS.get(name, "{}").format(text)


every_secret = pytest.mark.parametrize("name", [f.metadata["name"] for f in fields(Settings) if f.metadata.get("secret")])


@every_secret
def test_a_secret_is_read_from_its_file(name, tmp_path):
    (tmp_path / "secret").write_text(f"{example(name)}\n")

    settings = load_settings({"APP_ENV": "development", f"{name}_FILE": str(tmp_path / "secret")})

    assert by_name(settings)[name] == example(name)


@every_secret
def test_a_secrets_variable_takes_precedence_over_its_file(name):
    settings = read(**{name: example(name), f"{name}_FILE": "/does/not/exist"})

    assert by_name(settings)[name] == example(name)


@every_secret
def test_an_unreadable_secret_file_is_refused(name, tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff" * 40)

    for path in ("/does/not/exist", str(tmp_path), str(tmp_path / "binary")):
        assert refusal({"APP_ENV": "development", f"{name}_FILE": path}) == f"{name}_FILE={path!r} cannot be read."


@every_secret
def test_an_empty_secret_file_counts_as_unset(name, tmp_path):
    (tmp_path / "empty").write_text(" \n")

    settings = load_settings({"APP_ENV": "development", f"{name}_FILE": str(tmp_path / "empty")})

    assert by_name(settings)[name] == DEFAULTS.get(name, "")


@every_secret
def test_a_secret_that_is_not_utf_8_is_refused(name):
    secret = os.fsdecode(b"\xff" * 40)

    assert name in refusal(PRODUCTION | {"AUTH_MODE": "proxy", "AUTH_PROXY_SECRET": SECRET, name: secret})


@every_secret
def test_repr_contains_no_secrets(name):
    assert "swordfish" not in repr(read(**{name: example(name, "swordfish" * 4)}))


@pytest.mark.parametrize("text", ["http://redis.example", "redis://", "redis://redis.example:port", "swordfish"])
def test_an_invalid_secret_is_named_but_not_shown(text):
    assert refusal(PRODUCTION | {"REDIS_URL": text}) == "REDIS_URL is not a Redis URL."


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///chat.db",
        "sqlite:////var/lib/chat.db",
        "postgres://chat:p%40ss@db.example:5432/chat?sslmode=require",
        "postgresql:///chat",
        "postgresql+psycopg://db.example/chat",
    ],
)
def test_a_database_url_is_unchanged_and_not_in_repr(url):
    settings = read(DATABASE_URL=url)

    assert settings.database_url == url
    assert url not in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        "chat.db",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "postgres://u:password@host",
        "postgres://u:password@host:port/name",
        "mysql://u:password@h/n",
        "http://u:password@host/name",
    ],
)
def test_an_invalid_database_url_is_refused(url):
    message = refusal(PRODUCTION | {"DATABASE_URL": url})

    assert message.startswith("DATABASE_URL is neither")
    assert "password" not in message


def test_other_settings_are_not_read_from_files(tmp_path):
    (tmp_path / "port").write_text("8123")

    assert read(PORT_FILE=str(tmp_path / "port")).port == DEFAULTS["PORT"]


def test_settings_are_immutable():
    settings = read()

    with pytest.raises(FrozenInstanceError):
        settings.port = 1


def test_settings_are_read_from_the_environment_by_default(monkeypatch):
    for name, value in (PRODUCTION | {"PORT": "8123"}).items():
        monkeypatch.setenv(name, value)

    assert load_settings().port == 8123


def test_reading_settings_does_not_change_the_environment():
    environment = {"FLASK_RUN_FROM_CLI": "true"}

    load_settings(environment)

    assert environment == {"FLASK_RUN_FROM_CLI": "true"}


def test_the_development_key_is_stored(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    first = load_settings({"APP_ENV": "development"}).signing_key()

    second = load_settings({"APP_ENV": "development"}).signing_key()

    assert second == first
    assert len(first) >= 32
    (key_file,) = (tmp_path / "instance").iterdir()
    assert key_file.stat().st_mode & 0o077 == 0


def test_processes_that_start_together_share_one_development_key(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = load_settings({"APP_ENV": "development"})

    keys = in_parallel(16, lambda _: settings.signing_key())

    assert len(set(keys)) == 1
    assert [path.name for path in (tmp_path / "instance").iterdir()] == ["secret_key"]


def test_a_configured_secret_key_is_the_signing_key(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    assert read().signing_key() == SECRET
    assert not list(tmp_path.iterdir())


def run_python(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.servers
@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "AUTH_MODE is required in production: anonymous, proxy or jwt."),
        (PRODUCTION | {"HEARTBEAT_SECONDS": "soon"}, "HEARTBEAT_SECONDS='soon' is not a number."),
        (PRODUCTION | {"HEARTBEAT_SECONDS": "two\nlines"}, "HEARTBEAT_SECONDS='two\\nlines' is not a number."),
        (PRODUCTION | {"SECRET_KEY": "short"}, "SECRET_KEY is required in production, 32 bytes at least."),
    ],
)
def test_a_refused_process_prints_one_line_and_exits_with_status_3(environment, message):
    process = run_python("import app", environment)

    assert (process.returncode, process.stdout, process.stderr) == (3, "", f"{message}\n")


@pytest.mark.servers
@pytest.mark.parametrize("key", ["", "k" * 31])
def test_a_standalone_broker_requires_a_safe_key(key):
    process = run_python("from bff.broker import create_broker; create_broker()", {"BROKER_API_KEY": key})

    message = "BROKER_API_KEY is required for a broker on a port of its own, 32 bytes at least."
    assert (process.returncode, process.stdout, process.stderr) == (3, "", f"{message}\n")


@pytest.mark.servers
@pytest.mark.parametrize(
    ("code", "environment"),
    [
        ("import app", PRODUCTION),
        ("import app", {"APP_ENV": "development"}),
        ("from bff.broker import create_broker; create_broker()", {"BROKER_API_KEY": "k" * 32}),
    ],
)
def test_a_started_process_prints_nothing(code, environment, tmp_path):
    process = run_python(f"import os; os.chdir({str(tmp_path)!r}); {code}", environment)

    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("environment", "file"),
    [
        ({}, "instance/queue.db"),
        ({"QUEUE_FILE": "/data/q.db"}, "/data/q.db"),
        ({"QUEUE_FILE": "off"}, None),
        ({"REDIS_URL": "redis://redis.example/0", "QUEUE_FILE": "/data/q.db"}, None),
        ({"DYNO": "web.1", "DATABASE_URL": "postgresql://database.example/chat"}, None),
        ({"DYNO": "web.1", "DATABASE_URL": "postgresql://database.example/chat", "QUEUE_FILE": "/data/q.db"}, "/data/q.db"),
    ],
)
def test_the_path_of_the_journal(environment, file):
    assert read(**environment).journal_file() == (Path(file) if file else None)


def test_a_standalone_broker_has_a_journal_of_its_own():
    assert read().journal_file(alone=True) == Path("instance/broker-queue.db")
    assert read(QUEUE_FILE="/data/q.db").journal_file(alone=True) == Path("/data/q.db")
