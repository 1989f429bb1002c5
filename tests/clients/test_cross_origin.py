"""A page on another origin in Chromium: if allowed, it uses OpenAI's client; otherwise its requests are refused."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.chromium import chromium
from tests.clients.conftest import HERE, node_or_skip
from tests.live import Server, eventually
from tests.security.matrix import SETTINGS as JWT
from tests.security.matrix import bearer

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

TOKEN = bearer("ada", "home")["Authorization"].removeprefix("Bearer ")
ASK_TWICE = """async ([baseURL, apiKey]) => {
  const { default: OpenAI } = await import('/openai.js')
  const client = new OpenAI({ baseURL, apiKey, dangerouslyAllowBrowser: true, maxRetries: 0 })
  const replies = []
  for (const content of ['first', 'second']) {
    const request = { model: 'echo', messages: [{ role: 'user', content }] }
    replies.push((await client.chat.completions.create(request)).choices[0].message.content)
    let text = ''
    for await (const chunk of await client.chat.completions.create({ ...request, stream: true })) {
      text += chunk.choices[0].delta.content ?? ''
    }
    replies.push(text)
  }
  const error = await client.chat.completions.create({ model: 'none', messages: [] }).catch((error) => error)
  return { replies, status: error.status, id: Boolean(error.requestID) }
}"""
FORGE = """async (url) => {
  const post = { method: 'POST', body: '{"message": "forged"}' }
  const asText = { mode: 'no-cors', credentials: 'include', headers: { 'Content-Type': 'text/plain' } }
  await fetch(`${url}/api/chat/stream`, { ...post, ...asText })
  await fetch(`${url}/api/chat/active`, { mode: 'no-cors', credentials: 'include' })
  await new Promise((done) => Object.assign(new Image(), { onerror: done, src: `${url}/api/diagnostics/stream` }))
  await fetch(`${url}/api/preferences`, { ...post, method: 'PUT', credentials: 'include' }).catch(() => {})
  document.body.innerHTML = `<iframe name="target" sandbox="allow-forms"></iframe>
    <form method="post" enctype="text/plain" target="target" action="${url}/api/chat">
    <input name='{"message": "forged", "x": "' value='"}'></form>`
  document.forms[0].submit()
}"""


class Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def page_origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a page that has OpenAI's client."""
    folder: Path = tmp_path_factory.mktemp("page")
    command = [node_or_skip(), "node_modules/esbuild/bin/esbuild", "--bundle", "--format=esm", f"--outfile={folder}/openai.js"]
    source = "export { default } from 'openai'"
    done = subprocess.run(command, cwd=HERE, input=source, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (folder / "index.html").write_text("<!doctype html><title>Another origin</title><body></body>")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers = []

    def start(**settings: str) -> Server:
        servers.append(Server("gunicorn", tmp_path / "server.log", **settings))
        return servers[-1].wait_until_ready()

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def page(browser: Browser, page_origin: str) -> Iterator[Page]:
    context = browser.new_context()
    page = context.new_page()
    page.goto(page_origin)
    yield page
    context.close()


def test_a_page_on_another_origin_uses_openais_client(page, page_origin, start_server):
    server = start_server(**JWT, CORS_ALLOW_ORIGINS=page_origin)

    result = page.evaluate(ASK_TWICE, [f"http://localhost:{server.port}/v1", TOKEN])

    assert result == {"replies": ["first", "first", "second", "second"], "status": 400, "id": True}


def test_another_pages_requests_are_refused(page, start_server):
    """The page and the server are of one site, two ports of one host, so that `SameSite` does not withhold the cookie."""
    server = start_server(AUTH_MODE="anonymous")
    own_page = page.context.new_page()
    own_page.goto(server.url)
    assert own_page.request.get(f"{server.url}/api/chat/active").status == 200
    refused = {"POST /api/chat/stream", "GET /api/chat/active", "GET /api/diagnostics/stream", "POST /api/chat"}
    expected = {f"{request} 403" for request in refused}

    page.evaluate(FORGE, server.url)

    assert eventually(lambda: expected <= {line["message"] for line in server.log_lines}, 20), server.log
    assert "PUT /api/preferences" not in server.log, "its preflight request was refused"
    assert "was enqueued" not in server.log
    assert own_page.request.get(f"{server.url}/api/chat/history").json()["total_count"] == 0
