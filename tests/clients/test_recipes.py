"""Runs every recipe of docs/clients.md unchanged except for the server's address."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import HERE, node_or_skip
from tests.live import ROOT, Server
from tests.missing import missing

pytestmark = [pytest.mark.slow, pytest.mark.live, pytest.mark.timeout(90)]

BLOCK = re.compile(r"^```\w+\n(?:#|//) (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEXT = (ROOT / "docs" / "clients.md").read_text()
RECIPES = {match[1]: match[2] for match in BLOCK.finditer(TEXT)}
HELLO = "Hello, streaming world"

Run = Callable[..., str]


@pytest.fixture(scope="module")
def anonymous_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Started as by `make run`: every client is an anonymous user."""
    log = tmp_path_factory.mktemp("recipes") / "server.log"
    server = Server("gunicorn", log, AUTH_MODE="anonymous").wait_until_ready()
    yield server
    server.stop()


@pytest.fixture
def run(anonymous_server: Server, tmp_path: Path) -> Run:
    """`run(name, *command)` returns the command's output. RECIPE in the command stands for the recipe's file."""

    def run_recipe(name: str, *command: str) -> str:
        recipe = tmp_path / name
        recipe.write_text(RECIPES[name].replace("http://localhost:8000", anonymous_server.url))
        if not (tmp_path / "node_modules").exists():
            (tmp_path / "node_modules").symlink_to(HERE / "node_modules")
        environment = {"PATH": os.environ["PATH"], "SERVER_URL": anonymous_server.url, "PYTHONIOENCODING": "utf-8"}
        environment |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # Or LiteLLM fetches its prices from the network.
        arguments = [part.replace("RECIPE", str(recipe)) for part in command]
        done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_recipe


def test_every_recipe_is_known():
    assert len(RECIPES) == TEXT.count("```") // 2
    assert set(RECIPES) == {
        "useChat.jsx",
        "workflow.jsx",
        "tanstack.jsx",
        "eventsource-client.mjs",
        "chat_openai.py",
        "completion.py",
        "assistant-ui.jsx",
        "event-source.js",
        "ticket.js",
        "chat.sh",
        "stream.py",
        "completions.py",
        "completions.mjs",
        "responses.py",
        "responses.mjs",
        "ag-ui.mjs",
    }


@pytest.mark.parametrize("name", ["useChat.jsx", "workflow.jsx", "tanstack.jsx", "assistant-ui.jsx"])
def test_a_page_shows_the_reply(run, name):
    shown = run(name, node_or_skip(), str(HERE / "page.mjs"), "RECIPE", HELLO)

    assert shown.count(HELLO) == 2, "the message and the reply"


@pytest.mark.parametrize("name", ["useChat.jsx", "workflow.jsx", "tanstack.jsx"])
def test_a_page_stops_the_reply(run, name):
    shown = run(name, node_or_skip(), str(HERE / "page.mjs"), "RECIPE", "/slow 600 one two")

    assert shown.startswith("/slow 600 one twoone ")


PAGE = """
import { EventSource as Source } from 'eventsource'
const { fetch: nodeFetch } = globalThis
const server = process.env.SERVER_URL
let cookie = ''
globalThis.fetch = async (path, init) => {
  const response = await nodeFetch(new URL(path, server), { ...init, headers: { ...init.headers, cookie, origin: server } })
  cookie ||= response.headers.getSetCookie()[0]?.split(';')[0] ?? ''
  return response
}
globalThis.EventSource = class extends Source {
  constructor(path) {
    super(new URL(path, server), { fetch: (url, init) => nodeFetch(url, { ...init, headers: { ...init.headers, cookie } }) })
  }
}
"""
"""What a page has and Node lacks: relative URLs, cookies, an origin, `EventSource`."""


def test_event_source_reads_a_reply(run):
    script = f"let text = ''; await ask('{HELLO}', (piece) => (text += piece)); process.stdout.write(text)"

    assert (
        run("event-source.js", node_or_skip(), "--input-type=module", "-e", PAGE + RECIPES["event-source.js"] + script) == HELLO
    )


def test_a_ticket_opens_an_event_source(run):
    script = """
const response = await fetch('/api/chat/stream', {
  method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{"message": "hello"}',
})
response.body.cancel()
const source = await follow(response.headers.get('Location'), 'a token')
cookie = 'none'
await new Promise((resolve) => (source.onmessage = ({ data }) => JSON.parse(data).type === 'complete' && resolve()))
process.stdout.write('complete', () => process.exit(0))
"""
    outcome = run("ticket.js", node_or_skip(), "--input-type=module", "-e", PAGE + RECIPES["ticket.js"] + script)

    assert outcome == "complete"


def test_curl_sends_follows_and_stops_a_message(run):
    printed = run("chat.sh", "sh", "-e", "RECIPE")

    frames = [line for line in printed.splitlines() if '"type":"complete"' in line]
    assert len(frames) == 2
    assert frames[0] == frames[1], "the same events when sent and when followed"
    assert '"status":"stopping"' in printed
    assert '"Hello, whole world"' in printed


@pytest.mark.parametrize("name", ["stream.py", "completions.py", "responses.py"])
def test_python_prints_the_reply(run, name):
    assert run(name, sys.executable, "RECIPE") == HELLO


@pytest.mark.timeout(200)  # Importing LiteLLM takes 15 seconds of CPU time.
@pytest.mark.parametrize("name", ["chat_openai.py", "completion.py"])
def test_a_framework_prints_the_reply(run, name):
    python = ROOT / ".venv" / "frameworks" / "bin" / "python"
    if not python.exists():
        missing("the virtual environment of the frameworks")
    assert run(name, str(python), "RECIPE") == HELLO


@pytest.mark.parametrize("name", ["completions.mjs", "responses.mjs", "ag-ui.mjs", "eventsource-client.mjs"])
def test_node_prints_the_reply(run, name):
    assert run(name, node_or_skip(), "RECIPE") == HELLO
