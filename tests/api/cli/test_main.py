"""`chat-bff`: its commands without the settings of a server."""

import pytest
from click.testing import CliRunner, Result

from bff.__main__ import main
from tests.wire_server import LAST_CHUNK, WireServer, chunk, stream_head

TICKS = [chunk(f'data: {{"type":"tick","elapsed_ms":{number * 10}}}\n\n'.encode()) for number in range(2)]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """`run(*arguments)` with no setting but those of the test, in an empty directory."""
    for name in ("APP_ENV", "AUTH_MODE", "SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments)

    return run


@pytest.mark.parametrize("command", ["doctor", "webhooks", "nonsense"])
def test_an_invalid_setting_ends_a_command_with_its_sentence_alone(run, command):
    result = run(command)

    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "AUTH_MODE is required in production: anonymous, proxy or jwt.\n"


def test_an_unknown_command_is_named(run, monkeypatch):
    monkeypatch.setenv("APP_ENV", "development")

    result = run("nonsense")

    assert result.exit_code == 2
    assert "No such command 'nonsense'." in result.stderr


def test_diagnose_needs_no_settings(run):
    with WireServer([stream_head()], [stream_head(), *TICKS, LAST_CHUNK]) as server:
        result = run("diagnose", server.url)

    assert "ticks arrived" in result.stdout, result.output


def test_diagnose_names_a_damaged_setting(run, monkeypatch):
    monkeypatch.setenv("CA_FILE", "/nowhere.pem")

    result = run("diagnose", "http://127.0.0.1:1")

    assert result.exit_code == 1
    assert "CA_FILE" in result.stderr
    assert "Traceback" not in result.output
