"""The package as `pip install` installs it, in an environment and a directory that have nothing of the checkout."""

import signal
import subprocess

import pytest

from tests.deploy.conftest import run
from tests.live import INHERITED, ROOT, Browser, eventually, free_port, status_of, text_of

pytestmark = [pytest.mark.slow, pytest.mark.live, pytest.mark.timeout(240)]


def test_the_installed_server_runs_in_an_empty_directory(installed, tmp_path):
    port = free_port()
    environment = INHERITED | {"APP_ENV": "development", "PORT": str(port), "ECHO_WORD_SECONDS": "0.002"}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen([installed / "chat-bff", "run"], cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        browser = Browser(f"http://127.0.0.1:{port}")
        assert eventually(lambda: "Booting worker" in (tmp_path / "log").read_text(), 20)
        assert eventually(lambda: is_up(browser), 20), (tmp_path / "log").read_text()
        with browser.say("hello there") as reply:
            events = list(reply.events())

        assert text_of(events) == "hello there"
        assert events[-1]["type"] == "complete"
        assert status_of(browser.request("GET", "/")) == 200
        assert status_of(browser.request("GET", "/static/sse.js")) == 200
    finally:
        server.send_signal(signal.SIGTERM)
        status = server.wait(30)
    log = (tmp_path / "log").read_text()
    assert status == 0
    assert "Traceback" not in log, log
    assert "Warning" not in log, log


def is_up(browser: Browser) -> bool:
    try:
        return status_of(browser.request("GET", "/healthz")) == 200
    except OSError:
        return False


def test_the_installed_commands_run(installed, tmp_path):
    created = run(installed / "chat-bff", "db", "upgrade", cwd=tmp_path, APP_ENV="development")
    checked = run(installed / "python", "-m", "bff", "doctor", cwd=tmp_path, APP_ENV="development")
    shown = run(installed / "chat-bff", "--help", cwd=tmp_path)

    assert created.stdout.startswith("The database is at revision"), created.stderr
    assert (tmp_path / "instance" / "chat.db").exists()
    assert checked.returncode == 0, checked.stdout
    assert "WRONG" not in checked.stdout
    assert "run" in shown.stdout
    assert "worker" in shown.stdout


@pytest.mark.parametrize("command", ["run", "worker", "doctor"])
def test_an_invalid_setting_ends_each_command_with_one_sentence(installed, tmp_path, command):
    done = run(installed / "chat-bff", command, cwd=tmp_path, AUTH_MODE="none", PORT=str(free_port()))

    assert done.returncode != 0
    assert "AUTH_MODE='none' is not one of anonymous, proxy, jwt." in done.stderr
    assert "Traceback" not in done.stderr


def test_the_wheel_has_everything_but_tests(installed):
    (package,) = installed.parent.glob("lib/python*/site-packages/bff")
    expected = {path.relative_to(ROOT / "bff") for path in (ROOT / "bff").rglob("*") if path.suffix in {".py", ".lua", ".js"}}

    assert expected <= {path.relative_to(package) for path in package.rglob("*")}
    assert (package / "py.typed").exists()
    assert not (package.parent / "tests").exists()
