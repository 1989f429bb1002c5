"""Every example in docs/sse-js.md runs and does what it says."""

import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.live import PROXY_SECRET, Server
from tests.web.node import HERE, LIBRARY, node

__all__ = ["node"]

DOCS = LIBRARY.parents[3] / "docs" / "sse-js.md"
BLOCKS = re.findall(r"```js\n(.*?)```", DOCS.read_text(), re.DOTALL)
HELLO = "Hello, streaming world"

SUFFIXES = {
    "in a page": 'await reply.done; console.log(page.element("#reply").textContent);',
    "in a worker": 'self.onmessage({ data: "Hello, streaming world" });'
    'await page.waitFor(() => page.posted.at(-1)?.type === "complete"); console.log(page.posted.at(-1).response.responses[0]);',
    "in Node": "",
    "in a conversation": "",
    "resumed": "",
    "read by the parser": "",
}
OUTPUTS = {"resumed": "progress\ncomplete\n", "read by the parser": '{"type":"complete",'}

pytestmark = [pytest.mark.live, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    server = Server("gunicorn", tmp_path_factory.mktemp("docs") / "web.log")
    yield server.wait_until_ready()
    server.stop()


@pytest.fixture
def run(node, server, tmp_path):
    """`run(source)` runs a module with the globals of a page, and returns its output."""
    shutil.copytree(LIBRARY.parent, tmp_path / "static")
    shutil.copy(HERE / "fake_page.mjs", tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')

    def run_module(source: str) -> str:
        (tmp_path / "page.js").write_text(f'import * as page from "./fake_page.mjs";\n{source}')
        environment = {"CHAT_URL": server.url, "PROXY_SECRET": PROXY_SECRET}
        command = [node, str(tmp_path / "page.js")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=40)
        assert done.returncode == 0, done.stderr
        return done.stdout.replace("http://localhost:8000", server.url)

    return run_module


def test_every_example_has_a_test():
    assert len(BLOCKS) == len(SUFFIXES)


@pytest.mark.parametrize(("block", "where"), list(zip(BLOCKS, SUFFIXES, strict=True)), ids=list(SUFFIXES))
def test_examples_run(run, block, where):
    source = re.sub(r'"(/static/sse\.js|\./sse\.mjs)"', '"./static/sse.js"', block)

    output = run(source.replace('"http://localhost:8000', 'process.env.CHAT_URL + "') + SUFFIXES[where])

    assert OUTPUTS.get(where, HELLO) in output
