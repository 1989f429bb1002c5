"""Checks the docs against the program: everything is documented, and links, paths, code and commands are valid."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import pytest
from standardwebhooks import Webhook

from bff import errors
from bff.api import openapi
from bff.api.cli.conformance.checks import ALL as CHECKS
from bff.api.cli.conformance.model import Check
from bff.auth.identity import Authenticator, Identity
from bff.auth.orgs import Orgs
from bff.broker.webhooks.sending import signed_headers
from bff.config.settings import Settings
from bff.ops import metrics
from tests.live import ADA, BASE_ENVIRONMENT, BROKER_KEY, INHERITED, ROOT, eventually, free_port, new_app
from tests.missing import missing

DOCS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]
BIN = Path(sys.executable).parent
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OWN_PATHS = r"(?:bff|docs|deploy|tests|benchmarks)/[\w./-]*\w"


def text(name: str) -> str:
    return (ROOT / name).read_text()


def blocks_of(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text(name), re.M | re.S)


def blocks(language: str) -> list:
    found = [
        (path, block) for path in DOCS for block in re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.M | re.S)
    ]
    return [pytest.param(block, id=f"{path.stem}-{number}") for number, (path, block) in enumerate(found)]


def rows(name: str) -> list[list[str]]:
    """The cells of each line of each table."""
    lines = re.findall(r"^\| (.+) \|$", text(name), re.MULTILINE)
    return [[cell.strip() for cell in re.split(r" ?\| ?", line)] for line in lines]


def default_of(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(default_of, value))
    return f"{value:g}" if isinstance(value, float) else str(int(value) if isinstance(value, bool) else value)


@pytest.mark.parametrize("setting", fields(Settings), ids=lambda setting: setting.metadata["name"])
def test_every_setting_is_documented_with_its_default(setting):
    name = setting.metadata["name"]

    found = [cells for cells in rows("docs/configuration.md") if f"`{name}`" in cells[0]]

    assert len(found) == 1, name
    assert ("🔑" in found[0][0].partition(f"`{name}`")[2][:3]) == bool(setting.metadata.get("secret"))
    if setting.default not in ("", 0, ()):
        assert found[0][1] == default_of(setting.default)


def test_every_route_is_documented():
    app = new_app()
    lines = [line for name in ("docs/protocol.md", "docs/clients.md") for line in text(name).splitlines()]

    for route in (*openapi.routes(app), "GET /static/<path:filename>"):
        method, rule = route.split()
        documented = [line for line in lines if re.search(rf"{re.escape(rule)}`", line) and re.search(rf"`{method}\b", line)]
        assert documented, route


def test_every_event_and_every_code_is_documented():
    protocol = text("docs/protocol.md")
    schemas = openapi.document(openapi.routes(new_app()))["components"]["schemas"]
    types = {
        schema["properties"]["type"]["const"]
        for schema in schemas.values()
        if "const" in schema.get("properties", {}).get("type", {})
    }

    assert {"status", "complete", "error", "stopped"} < types
    for name in types:
        assert re.search(rf"`{name}`|\"type\": \"{name}\"", protocol), name
    for code, error_class in errors.BY_CODE.items():
        assert re.search(rf"^\| ({error_class.status}|in streams) \| .*`{code}`", protocol, re.MULTILINE), code


def test_every_metric_is_documented():
    ours = [metric.name for metric in metrics.REGISTRY.collect() if metric.name.startswith("chat_")]

    assert ours
    assert not [name for name in ours if name not in text("docs/operations.md")]


def conformance_row(check: Check) -> str:
    rule = re.sub(r"docs/([\w.-]+#[\w-]+)", r"[\1](\1)", check.rule)
    return f"| `{check.id}` | {check.title} | {rule} |"


def test_every_conformance_check_is_documented_with_its_rule():
    """The rules' links are checked like all others."""
    documented = re.findall(r"^\| `[a-z]+\.[a-z-]+` \|.*$", text("docs/conformance.md"), re.MULTILINE)

    assert documented == [conformance_row(check) for check in CHECKS.values()]


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_paths_exist(path):
    content = path.read_text()

    for link in re.findall(r"\]\(([^)\s]+)\)", content):
        if not re.match(r"https?:", link):
            file, _, anchor = link.partition("#")
            target = path.parent / file if file else path
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link
    for mentioned in re.findall(rf"`({OWN_PATHS})`", content):
        assert (ROOT / mentioned).exists() or (path.parent / mentioned).exists() or "benchmarks/out" in mentioned, mentioned


@pytest.mark.parametrize("block", blocks("sh"))
def test_shell_blocks_are_valid(block):
    subprocess.run(["bash", "-n"], input=block.encode(), check=True, timeout=30)


@pytest.mark.parametrize("block", blocks("json"))
def test_json_blocks_are_valid(block):
    json.loads(block)


@pytest.mark.parametrize("block", blocks("toml"))
def test_toml_blocks_are_valid(block):
    tomllib.loads(block)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_blocks_are_valid(block):
    ast.parse(block)


@pytest.fixture
def run_examples(monkeypatch, tmp_path):
    """`run_examples(path)`: the names that the Python blocks of a page define. One block is the module `shout`."""
    for name, value in (BASE_ENVIRONMENT | {"DATABASE_URL": f"sqlite:///{tmp_path}/chat.db"}).items():
        monkeypatch.setenv(name, value)

    def run(path: str) -> dict[str, Any]:
        names: dict[str, Any] = {"__name__": "example"}
        for block in re.findall(r"^```python\n(.*?)^```", text(path), re.M | re.S):
            exec(compile(block, path, "exec"), names)
            if "class Shout" in block:
                monkeypatch.setitem(sys.modules, "shout", SimpleNamespace(Shout=names["Shout"]))
        return names

    return run


def test_the_applications_with_the_extension_run(run_examples, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    client = run_examples("docs/embedding.md")["app"].test_client()

    for prefix in ("/assistant", "/support"):
        assert client.get(f"{prefix}/").status_code == 200
        assert client.get(f"{prefix}/api/agents", headers=ADA).status_code == 200


@pytest.mark.parametrize("path", ["docs/extending.md", "docs/tutorial.md"])
def test_the_agent_of_an_example_answers_direct_chat(run_examples, path):
    client = run_examples(path)["app"].test_client()

    assert client.post("/api/chat", json={"message": "a word"}, headers=ADA).json["responses"] == ["A WORD "]


def test_the_example_of_an_authenticator_works(run_examples):
    authenticator: Authenticator = run_examples("docs/extending.md")["ApiKeys"]({"key": "ann"}, Orgs("home", ""))

    assert authenticator.authenticate({"X-API-Key": "key"}, {}) == Identity("ann", "home")
    with pytest.raises(errors.Unauthorized):
        authenticator.authenticate({}, {})


def test_the_example_of_a_webhook_receiver_verifies_its_webhooks(run_examples, monkeypatch):
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    names = run_examples("docs/webhooks.md")
    client, body = names["app"].test_client(), json.dumps(json.loads(blocks_of("docs/webhooks.md", "json")[0]))
    headers = signed_headers([Webhook(SECRET)], "1" * 72, body)

    answers = [client.post("/hook", data=body, headers=headers).status_code for _ in range(2)]
    forged = client.post("/hook", data=body.replace("ann", "bob"), headers=headers).status_code

    assert (answers, forged) == ([204, 204], 400)
    assert [message["data"]["user_id"] for message in names["received"]] == ["ann"]


@pytest.mark.parametrize(
    "target", sorted({name for path in DOCS for name in re.findall(r"`?\bmake ([a-z-]+)`", path.read_text())})
)
def test_mentioned_make_targets_exist(target):
    process = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert process.returncode == 0, process.stderr


def test_paths_that_make_test_ignores_exist():
    output = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout

    ignored = re.findall(r"--ignore=(\S+)", output)
    assert ignored
    assert [path for path in ignored if not (ROOT / path).exists()] == []


# The README's commands


@pytest.mark.live
def test_the_readmes_first_commands_work(tmp_path):
    if not (ROOT / ".venv" / "run").exists():
        missing("What `make run` runs")
    first, second = (
        re.search(rf"^```sh\n({start}.*?)\n```", text("README.md"), re.M | re.S)[1] for start in ("make run", "curl")
    )
    port = free_port()
    files = {"DATABASE_URL": f"sqlite:///{tmp_path}/chat.db", "QUEUE_FILE": f"{tmp_path}/queue.db"}
    environment = INHERITED | files | {"PORT": str(port), "SECRET_KEY": "k" * 32}
    command = first.splitlines()[0].partition("#")[0].split()

    with (tmp_path / "log").open("w+b") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            assert eventually(lambda: is_healthy(port) or process.poll() is not None, 60)
            assert process.poll() is None, (tmp_path / "log").read_text()
            output = subprocess.run(
                ["bash", "-c", second.replace("localhost:8000", f"localhost:{port}")],
                capture_output=True,
                timeout=30,
                check=True,
            ).stdout.decode()
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(30)

    shown = re.findall(r"^data: .+$", text("README.md"), re.MULTILINE)
    assert shown
    assert set(shown) <= set(output.splitlines())


@pytest.mark.live
def test_the_readmes_python_client_prints_the_reply(share):
    [client] = re.findall(r"^```python\n(.*?)^```", text("README.md"), re.M | re.S)
    server = share("gunicorn", AUTH_MODE="anonymous")

    printed = subprocess.check_output([sys.executable, "-c", client.replace("localhost:8000", f"localhost:{server.port}")])

    assert printed == b"Hello"


@pytest.mark.slow
@pytest.mark.live
def test_the_tutorials_commands_work(share, tmp_path):
    if shutil.which("curl") is None:
        missing("curl")
    server = share("gunicorn", AUTH_MODE="anonymous")
    blocks = re.findall(r"^```sh\n(.*?)^```", text("docs/tutorial.md"), re.M | re.S)
    stream, leave, follow, create, ask = blocks[1:6]
    commands = [stream.replace("/slow 5", "/slow 1"), leave.replace("--max-time 2", "--max-time 0.5")]
    find_id = 'CONVERSATION=$(sed -n \'s/.*"id":"\\([^"]*\\).*/\\1/p\' created)\n'
    script = "\n".join(["set -u", *commands, "echo ---", follow, "echo ---"])
    script += f"\n({create.strip()}) > created\n" + find_id + ask.partition("\n")[2]

    done = subprocess.run(
        ["bash", "-c", script.replace("localhost:8000", f"localhost:{server.port}")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=40,
    )

    assert done.stdout.count("---\n") == 2, (done.stdout, done.stderr)
    first, resumed, conversation = done.stdout.split("---\n")
    assert '"type":"complete"' in first
    assert '"responses":["one two three four five"]' in resumed
    assert '"content":"Hello"' in conversation, done.stdout
    assert "event: done" in conversation


def is_healthy(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


RUN = [cells[0].strip("`") for cells in rows("README.md") if re.match(r"`(make run|flask|gunicorn|python)\b", cells[0])]


@pytest.mark.servers
@pytest.mark.parametrize("command", RUN)
def test_every_documented_command_starts_the_program(command, tmp_path):
    """With an invalid setting, so that the process ends at once; live tests run servers and workers."""
    environment = BASE_ENVIRONMENT | {"PATH": f"{BIN}:{os.environ['PATH']}", "PORT": "0", "BROKER_API_KEY": BROKER_KEY}
    wrong = environment | {"HEARTBEAT_SECONDS": "soon"}
    if command.startswith("make"):
        command = (
            text("Makefile").partition("\nrun:")[2].partition("\n\n")[0].splitlines()[-1].replace(".venv/bin/", "").strip()
        )

    process = subprocess.run(["bash", "-c", command], cwd=ROOT, env=wrong, capture_output=True, text=True, timeout=60)

    assert process.returncode == 3, process.stderr
    assert "HEARTBEAT_SECONDS='soon' is not a number." in process.stderr
