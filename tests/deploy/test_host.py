"""The extension in a host application, as a process: with `flask run` and gunicorn, from the checkout and from the wheel."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.chromium import chromium
from tests.live import INHERITED, ROOT, eventually, free_port
from tests.live import Browser as Client
from tests.web.page import TIMEOUT_MS, replies, send, wait_for_reply

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]
HOST_APP = Path(__file__).with_name("host_app.py")
GUNICORN_CONFIG = "from bff import gunicorn_config\n\nglobals().update(gunicorn_config())\n"
SERVERS = ("flask", "gunicorn", "wheel")


class Host:
    """A running host application."""

    def __init__(self, kind: str, folder: Path, python: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / "log"
        shutil.copy(HOST_APP, folder)
        (folder / "gunicorn.conf.py").write_text(GUNICORN_CONFIG)
        environment = INHERITED | {"APP_ENV": "development", "PORT": str(port), "ECHO_WORD_SECONDS": "0.02"}
        environment |= {"DATABASE_URL": f"sqlite:///{folder}/host.db"} | ({} if kind == "wheel" else {"PYTHONPATH": str(ROOT)})
        flask = ["flask", "--app", "host_app", "run", "--port", str(port)]
        command = [python, "-m", *(flask if kind == "flask" else ["gunicorn", "host_app:app"])]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        assert eventually(self._is_up, 30), self.log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def _is_up(self) -> bool:
        try:
            with Client(self.url).request("GET", "/assistant/healthz") as response:
                return response.status == 200
        except OSError:
            return False

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(40)
        finally:
            self.process.kill()
            self.process.wait(5)


@pytest.fixture(scope="module", params=SERVERS)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    is_wheel = request.param == "wheel"
    python = request.getfixturevalue("installed") / "python" if is_wheel else Path(sys.executable)
    host = Host(request.param, tmp_path_factory.mktemp(request.param), python)
    yield host
    status = host.stop()
    assert "Traceback" not in host.log, host.log
    assert request.param == "flask" or status == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.mark.slow
def test_a_user_of_the_host_chats_in_both_pages(host, browser):
    page = browser.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    assert page.goto(f"{host.url}/").status == 401
    page.goto(f"{host.url}/login/ada")

    page.goto(f"{host.url}/")
    expect(page.locator("#visits")).to_have_text("1")
    expect(page.locator("#reply")).to_have_text("from the host's page")
    page.goto(f"{host.url}/assistant/")
    send(page, "from the chat's page")
    wait_for_reply(page)
    page.wait_for_url("**/assistant/#/c/*")
    page.reload()
    expect(replies(page)).to_have_text("from the chat's page")
    page.get_by_role("link", name="Direct chat").click()
    expect(replies(page).first).to_have_text("from the host's page")
    page.get_by_role("button", name="Check the connection").click()
    expect(page.locator("#check")).to_contain_text("came as they were sent")
    assert page.goto(f"{host.url}/assistant/nowhere").text() == "the host's 404"
    assert problems == []
    page.close()


@pytest.mark.slow
def test_streams_end_and_resume_when_the_host_stops(tmp_path):
    host = Host("gunicorn", tmp_path, Path(sys.executable))
    client = Client(host.url)
    with client.request("GET", "/login/ada") as response:
        cookie = response.headers["Set-Cookie"].partition(";")[0]
    text = " ".join(f"word-{number}" for number in range(300))
    stream = client.request("POST", "/assistant/api/chat/stream", {"message": text}, Cookie=cookie)
    next(stream.events())

    assert host.stop() == 0
    stream.leave()
    host = Host("gunicorn", tmp_path, Path(sys.executable))
    try:
        with Client(host.url).request("GET", stream.headers["Location"], Cookie=cookie) as resumed:
            last = list(resumed.events())[-1]
        assert last["response"]["responses"] == [text]
    finally:
        assert host.stop() == 0
