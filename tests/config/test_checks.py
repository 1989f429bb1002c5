from importlib.util import find_spec

import pytest

from bff.config import checks
from bff.config.checks import dangers, secret_values, warnings
from bff.config.environment import load_settings
from tests.live import Server
from tests.refusal import refusal

KEY = "k" * 32
PRODUCTION = {"AUTH_MODE": "anonymous", "SECRET_KEY": KEY}
BROKER = {"BROKER_API_KEY": KEY}
JWT = {"AUTH_MODE": "jwt"}
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
POSTGRES = "postgresql://chat:pw@db.example/chat"

UNSAFE = {
    "no SECRET_KEY": ({"SECRET_KEY": ""}, "SECRET_KEY is required in production, 32 bytes at least."),
    "a short SECRET_KEY": ({"SECRET_KEY": "k" * 31}, "SECRET_KEY is required in production, 32 bytes at least."),
    "a short SECRET_KEY with whitespace": (
        {"SECRET_KEY": "  " + "k" * 31 + "\n"},
        "SECRET_KEY is required in production, 32 bytes at least.",
    ),
    "no AUTH_MODE": ({"AUTH_MODE": ""}, "AUTH_MODE is required in production: anonymous, proxy or jwt."),
    "an unknown AUTH_MODE": ({"AUTH_MODE": "none"}, "AUTH_MODE='none' is not one of anonymous, proxy, jwt."),
    "webhooks without a secret": (
        {"WEBHOOK_URL": "https://hooks.example"},
        "WEBHOOK_SECRET is required with WEBHOOK_URL: webhooks are signed.",
    ),
    "webhooks in the clear": (
        {"WEBHOOK_URL": "http://hooks.example/x", "WEBHOOK_SECRET": WEBHOOK_SECRET},
        "WEBHOOK_URL must begin with https://, unless its origin is in WEBHOOK_ALLOW_ORIGINS.",
    ),
    "a broker without its key": (
        {"BROKER_BASE_URL": "https://broker.example"},
        "BROKER_API_KEY is required with BROKER_BASE_URL.",
    ),
    "an engine without its key": (
        {"ENGINE_BASE_URL": "https://engine.example"},
        "ENGINE_API_KEY is required with ENGINE_BASE_URL.",
    ),
    "a key in the clear": (
        BROKER | {"BROKER_BASE_URL": "http://broker.example"},
        "BROKER_BASE_URL must begin with https://: BROKER_API_KEY would be sent in the clear.",
    ),
    "a model's key in the clear": (
        {"OPENAI_BASE_URL": "http://models.example/v1", "OPENAI_API_KEY": KEY},
        "OPENAI_BASE_URL must begin with https://: OPENAI_API_KEY would be sent in the clear.",
    ),
    "a key set over http": (
        JWT | {"AUTH_JWT_JWKS_URL": "http://id.example/keys"},
        "AUTH_JWT_JWKS_URL must begin with https://: an attacker in between could replace the keys.",
    ),
    "a model that may be silent for longer than its reply may take": (
        {"MODEL_READ_SECONDS": "600"},
        "MODEL_READ_SECONDS must be below ANSWER_MAX_SECONDS.",
    ),
    "exposed upstream errors": (
        {"EXPOSE_UPSTREAM_ERRORS": "1"},
        "EXPOSE_UPSTREAM_ERRORS=1 is for development only: users must not see upstream errors.",
    ),
    "no DATABASE_URL on Heroku": (
        {"DYNO": "web.1"},
        "DATABASE_URL is required here, and must not be SQLite: this platform's disk is emptied at every restart.",
    ),
    "SQLite on Heroku": (
        {"DYNO": "web.1", "DATABASE_URL": "sqlite:///chat.db"},
        "DATABASE_URL is required here, and must not be SQLite: this platform's disk is emptied at every restart.",
    ),
    "no proxy secret": (
        {"AUTH_MODE": "proxy"},
        "AUTH_PROXY_SECRET is required with AUTH_MODE=proxy, 32 bytes at least.",
    ),
    "a short proxy secret": (
        {"AUTH_MODE": "proxy", "AUTH_PROXY_SECRET": "k" * 31},
        "AUTH_PROXY_SECRET is required with AUTH_MODE=proxy, 32 bytes at least.",
    ),
    "neither a JWT secret nor a key set": (JWT, "AUTH_MODE=jwt requires AUTH_JWT_SECRET or AUTH_JWT_JWKS_URL, and not both."),
    "a JWT secret and a key set": (
        JWT | {"AUTH_JWT_SECRET": KEY, "AUTH_JWT_JWKS_URL": "https://id.example/keys"},
        "AUTH_MODE=jwt requires AUTH_JWT_SECRET or AUTH_JWT_JWKS_URL, and not both.",
    ),
    "a short JWT secret": (JWT | {"AUTH_JWT_SECRET": "k" * 31}, "AUTH_JWT_SECRET must have 32 bytes at least."),
}
IDENTITY = [name for name, (environment, _) in UNSAFE.items() if environment.get("AUTH_MODE") in {"proxy", "jwt"}]
IDENTITY.remove("a key set over http")


@pytest.mark.parametrize(("environment", "message"), UNSAFE.values(), ids=UNSAFE)
def test_production_refuses_unsafe_settings(environment, message):
    assert refusal(PRODUCTION | environment) == message


@pytest.mark.parametrize("name", IDENTITY)
def test_development_refuses_incomplete_authentication_settings(name):
    environment, message = UNSAFE[name]

    assert refusal({"APP_ENV": "development"} | environment) == message


@pytest.mark.parametrize("name", ["a broker without its key", "a key in the clear", "a key set over http"])
def test_development_warns_of_dangerous_settings(name):
    environment, message = UNSAFE[name]

    assert list(dangers(load_settings({"APP_ENV": "development"} | environment))) == [message]


@pytest.mark.parametrize("name", ["no SECRET_KEY", "no AUTH_MODE", "exposed upstream errors", "no DATABASE_URL on Heroku"])
def test_development_accepts_missing_settings_without_a_warning(name):
    environment, _ = UNSAFE[name]

    assert not list(dangers(load_settings({"APP_ENV": "development"} | environment)))


@pytest.mark.parametrize("name", ["an engine without its key", "exposed upstream errors"])
def test_a_standalone_broker_refuses_unsafe_upstream_settings(name):
    environment, message = UNSAFE[name]

    assert refusal(environment, backend_only=True) == message


@pytest.mark.parametrize(
    "url",
    [
        "https://broker.example",
        "http://localhost:8080",
        "http://127.0.0.1:8080",
        "http://10.0.0.7",
        "http://192.168.1.7:8080",
        "http://100.64.0.1",
        "http://[::1]:8080",
        "http://[fd00::7]",
        "http://[::ffff:10.0.0.7]",
        "http://broker",
        "http://broker:8080",
        "http://broker.chat.svc.cluster.local",
        "http://broker.internal:8080",
    ],
)
def test_a_key_may_be_sent_in_the_clear_in_private_networks(url):
    assert load_settings(PRODUCTION | BROKER | {"BROKER_BASE_URL": url}).broker_base_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://broker.example",
        "http://broker.example.",
        "http://8.8.8.8",
        "http://[2001:4860:4860::8888]",
        "http://[::ffff:8.8.8.8]",
        "http://134744072",
        "http://0x08080808",
        "http://internal.example",
        "HTTP://BROKER.EXAMPLE",
    ],
)
def test_a_key_may_not_be_sent_in_the_clear_over_the_internet(url):
    assert "must begin with https://" in refusal(PRODUCTION | BROKER | {"BROKER_BASE_URL": url})


@pytest.mark.parametrize("url", [POSTGRES, "postgres://chat:pw@db.example/chat"])
def test_heroku_with_postgresql_is_accepted(url):
    assert load_settings(PRODUCTION | {"DYNO": "web.1", "DATABASE_URL": url}).dyno


def test_redis_with_sqlite_is_warned_of():
    redis = {"REDIS_URL": "redis://redis:6379/0"}
    [message] = warnings(load_settings(PRODUCTION | redis))

    assert message.startswith("REDIS_URL with SQLite: other machines do not see the conversations")
    assert not list(warnings(load_settings(PRODUCTION | redis | {"DATABASE_URL": POSTGRES})))
    assert not list(warnings(load_settings(PRODUCTION)))
    assert not list(warnings(load_settings({"APP_ENV": "development"} | redis)))


def test_a_local_model_server_needs_no_key():
    assert load_settings(PRODUCTION | {"OPENAI_BASE_URL": "http://127.0.0.1:11434/v1"}).openai_base_url


def test_secrets_include_passwords_of_urls():
    settings = load_settings(PRODUCTION | BROKER | {"DATABASE_URL": "postgres://chat:swordfish@db/chat"})

    assert set(secret_values(settings)) == {KEY, "postgres://chat:swordfish@db/chat", "swordfish"}


def test_short_secrets_are_not_redacted():
    assert not secret_values(load_settings({"APP_ENV": "development", "ENGINE_API_KEY": "key"}))


@pytest.mark.live
@pytest.mark.parametrize("name", ["no AUTH_MODE", "a key in the clear", "exposed upstream errors"])
def test_a_refused_server_logs_the_reason_once_and_exits_with_status_3(tmp_path, name):
    environment, message = UNSAFE[name]

    server = Server("gunicorn", tmp_path / "log", **({"APP_ENV": "production"} | PRODUCTION | environment))

    try:
        assert server.process.wait(30) == 3
    finally:
        server.stop()
    assert server.log.count(message) == 1
    assert "Traceback" not in server.log
    assert server.log.count("Booting worker") <= 1


def test_the_default_silence_of_a_model_allows_shorter_replies():
    assert load_settings(PRODUCTION | {"ANSWER_MAX_SECONDS": "10"}).model_read_seconds == 300


@pytest.mark.parametrize(
    ("settings", "module", "extra"),
    [
        ({"REDIS_URL": "redis://localhost"}, "redis", "redis"),
        ({"AUTH_MODE": "jwt", "AUTH_JWT_SECRET": KEY}, "jwt", "jwt"),
        ({"DATABASE_URL": POSTGRES}, "psycopg", "postgres"),
    ],
)
def test_a_setting_whose_packages_are_not_installed_is_refused(monkeypatch, settings, module, extra):
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == module else find_spec(name))

    assert refusal(PRODUCTION | settings).endswith(f"needs further packages: pip install 'chat-bff[{extra}]'.")
