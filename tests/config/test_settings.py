from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from bff.config.environment import load_settings
from tests.config.defaults import DEFAULTS, PRODUCTION, SECRET, by_name, read
from tests.live import in_parallel


def test_unset_settings_have_their_defaults():
    assert by_name(read()) == DEFAULTS | PRODUCTION


def test_development_needs_no_settings():
    settings = load_settings({"APP_ENV": "development"})

    own = {"APP_ENV": "development", "HOST": "127.0.0.1", "AUTH_MODE": "", "SECRET_KEY": "", "LOG_FORMAT": "text"}
    assert by_name(settings) == DEFAULTS | own
    assert settings.development
    assert not read().development


def test_external_services_halve_the_default_of_max_streams():
    def max_streams(**services: str) -> int:
        return load_settings(PRODUCTION | services).max_streams

    url = {"OPENAI_BASE_URL": "https://models.example/v1", "OPENAI_API_KEY": "k"}
    assert max_streams(**url) == max_streams(ENGINE_BASE_URL="https://engine.example", ENGINE_API_KEY="k") < max_streams()


def test_valid_proxy_settings_are_accepted():
    settings = read(AUTH_MODE="proxy", AUTH_PROXY_SECRET=SECRET, AUTH_PROXY_USER_HEADER="X-User")

    assert (settings.auth_mode, settings.auth_proxy_secret, settings.auth_proxy_user_header) == ("proxy", SECRET, "X-User")


@pytest.mark.parametrize("environment", [{}, {"AUTH_MODE": "anonymous"}, {"AUTH_MODE": "proxy"}])
def test_a_process_without_browsers_needs_no_authentication_settings(environment):
    settings = load_settings(environment, backend_only=True)

    assert not settings.development
    assert settings.log_format == "json"


def test_settings_are_immutable():
    settings = read()

    with pytest.raises(FrozenInstanceError):
        settings.port = 1


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
    assert read().journal_file(standalone=True) == Path("instance/broker-queue.db")
    assert read(QUEUE_FILE="/data/q.db").journal_file(standalone=True) == Path("/data/q.db")
