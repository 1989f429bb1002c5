import os
import subprocess
import sys
from dataclasses import fields

import pytest

from bff.config.environment import load_settings
from bff.config.settings import Settings
from tests.config.defaults import DEFAULTS, PRODUCTION, SECRET, by_name, read
from tests.live import ROOT
from tests.refusal import refusal


@pytest.mark.parametrize("name", DEFAULTS)
def test_an_empty_value_counts_as_unset(name):
    assert by_name(read(**{name: ""}))[name] == DEFAULTS[name]
    assert by_name(read(**{name: "  "}))[name] == DEFAULTS[name]


@pytest.mark.parametrize("app_env", [{}, {"APP_ENV": ""}])
def test_the_flask_command_implies_development(app_env):
    assert load_settings({"FLASK_RUN_FROM_CLI": "true"} | app_env).development


@pytest.mark.parametrize(
    "environment", [{"APP_ENV": "production", "FLASK_RUN_FROM_CLI": "true"}, {"FLASK_RUN_FROM_CLI": "false"}]
)
def test_app_env_overrides_the_flask_command(environment):
    assert not load_settings(PRODUCTION | environment).development


def test_settings_are_read_from_the_environment_by_default(monkeypatch):
    for name, value in (PRODUCTION | {"PORT": "8123"}).items():
        monkeypatch.setenv(name, value)

    assert load_settings().port == 8123


def test_reading_settings_does_not_change_the_environment():
    environment = {"FLASK_RUN_FROM_CLI": "true"}

    load_settings(environment)

    assert environment == {"FLASK_RUN_FROM_CLI": "true"}


URLS = {
    "REDIS_URL": "redis://:{}@redis.example/0",
    "DATABASE_URL": "postgresql://chat:{}@database.example/chat",
    "WEBHOOK_SECRET": "whsec_{}",
}
"""Secrets of which the text is a part."""


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


def test_other_settings_are_not_read_from_files(tmp_path):
    (tmp_path / "port").write_text("8123")

    assert read(PORT_FILE=str(tmp_path / "port")).port == DEFAULTS["PORT"]


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
