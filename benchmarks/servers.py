"""The servers compared, how each is prepared and started, and the `Testbed` that measures a running one."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import driver
from driver import Broker, Load, Plan, Request
from processes import OUT, Cores, Unavailable, cpu_seconds, free_port, memory_kib, running, wait_for_port, workers

HERE: Final = Path(__file__).parent
PEERS: Final = HERE / "peers"
PEERS_BIN: Final = OUT / "venv" / "bin"
SECRET: Final = "benchmarks-only-0123456789abcdef-0123456789abcdef"
CONNECTIONS: Final = 20_000
WARM_UP_REPLIES: Final = 200
ONE_WORD: Final = Plan("rate", rate=1000, count=1)
"""A reply of one event."""

Command = list[str | Path]


class Server(NamedTuple):
    name: str
    description: str
    prepare: Callable[[], None]
    """Installs what is missing, at first use. Raises Unavailable."""
    command: Callable[[int, int], Command]
    """Takes the port to listen on and the broker's port."""
    environment: dict[str, str]
    directory: Path
    posts_message: bool = True
    """Whether a POST enqueues the message and follows its stream; otherwise one GET is proxied."""


def _prepare_ours() -> None:
    if not _ours().exists():
        raise Unavailable("gunicorn is not installed for this Python: run `make run` once")


def _ours() -> Path:
    return Path(sys.executable).parent / "gunicorn"


def _prepare_python() -> None:
    required = (PEERS / "requirements.txt").read_text()
    installed = PEERS_BIN.parent / "installed.txt"
    if installed.exists() and installed.read_text() == required:
        return
    _log("installing the peers into benchmarks/out/venv")
    install = [PEERS_BIN / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", PEERS_BIN.parent], check=True, timeout=120)
        subprocess.run([*install, "-r", PEERS / "requirements.txt"], check=True, timeout=600, capture_output=True)
    except (subprocess.SubprocessError, OSError) as error:
        raise Unavailable("pip could not install benchmarks/peers/requirements.txt") from error
    installed.write_text(required)


def _prepare_node() -> None:
    version = _output_of(["node", "--version"])
    if int((re.findall(r"\d+", version) or ["0"])[0]) < 18:
        raise Unavailable(f"Node 18 or newer is needed, for its built-in fetch; found {version or 'none'}")


def _prepare_nginx() -> None:
    """Unpacks Debian's package without installing it, since the installed service would listen on port 80."""
    if _nginx() is not None:
        return
    package = OUT / "nginx"
    package.mkdir(parents=True, exist_ok=True)
    for command in (["apt-get", "download", "nginx"], ["apt-get", "update", "-qq"], ["apt-get", "download", "nginx"]):
        if not list(package.glob("nginx_*.deb")):
            _output_of(command, package)
    for file in package.glob("nginx_*.deb"):
        _output_of(["dpkg", "-x", str(file), "."], package)
    if _nginx() is None:
        raise Unavailable("nginx was not found, and Debian's package could not be downloaded: apt-get install nginx-light")


def _nginx() -> str | None:
    for path in (shutil.which("nginx"), "/usr/sbin/nginx", str(OUT / "nginx" / "usr" / "sbin" / "nginx")):
        if path and Path(path).exists() and _output_of([path, "-v"]):
            return path
    return None


def _output_of(command: list[str], directory: Path | None = None) -> str:
    """The command's stdout and stderr; "" if it is missing, fails or takes more than three minutes."""
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=180, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return (done.stdout + done.stderr).strip()


def _nginx_command(port: int, broker_port: int) -> Command:
    directory = OUT / "nginx-run"
    directory.mkdir(parents=True, exist_ok=True)
    text = (PEERS / "nginx.conf").read_text()
    values = {"PORT": port, "BROKER": broker_port, "FILES": CONNECTIONS, "DIRECTORY": directory}
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    (directory / "nginx.conf").write_text(text)
    return [_nginx() or "nginx", "-e", directory / "error.log", "-p", directory, "-c", directory / "nginx.conf"]


def _gunicorn_command(port: int, _: int) -> Command:
    options = ["--bind", f"127.0.0.1:{port}", "--worker-class", "gevent", "--workers", "1"]
    return [PEERS_BIN / "gunicorn", *options, "--worker-connections", str(CONNECTIONS), "--no-control-socket", "plain:app"]


def _uvicorn_command(port: int, _: int) -> Command:
    options = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--no-access-log"]
    return [PEERS_BIN / "uvicorn", *options, "fastapi_relay:app"]


OURS: Final = {
    "APP_ENV": "development",
    "AUTH_MODE": "proxy",
    "AUTH_PROXY_SECRET": SECRET,
    "SECRET_KEY": SECRET,
    "LOG_LEVEL": "WARNING",
    "MAX_STREAMS": "10000",
    "DATABASE_URL": f"sqlite:///{OUT / 'chat.db'}",
    "QUEUE_FILE": "off",  # Several servers run at once, and must not resume messages of an earlier run.
}

SERVERS: Final = {
    server.name: server
    for server in (
        Server("ours", "this project, one process", _prepare_ours, lambda *_: [_ours(), "app:app"], OURS, HERE.parent),
        Server(
            "plain", "Flask, gunicorn + gevent, requests, SSEClient(response)", _prepare_python, _gunicorn_command, {}, PEERS
        ),
        Server("fastapi", "FastAPI, uvicorn, httpx, sse-starlette", _prepare_python, _uvicorn_command, {}, PEERS),
        Server(
            "node",
            "Node, fetch through a TransformStream",
            _prepare_node,
            lambda *_: ["node", "node_relay.mjs"],
            {"NODE_ENV": "production"},
            PEERS,
        ),
        Server("nginx", "nginx, one GET proxied", _prepare_nginx, _nginx_command, {}, PEERS, posts_message=False),
    )
}


class Testbed:
    """A freshly started server and its broker stand-in: puts load on them and reads their CPU and memory."""

    def __init__(self, server: Server, core: int | None, port: int, broker: Broker, master: int) -> None:
        self.server = server
        self.broker = broker
        self._core = core
        self._port = port
        self._master = master
        self._started_at = time.monotonic()
        self.start_seconds = 0.0
        """From process start to the first complete reply."""
        self._pids: list[int] = []

    def load(
        self, plan: Plan, streams: int, start_rate: float = 0, pending: int = 0
    ) -> contextlib.AbstractContextManager[Load]:
        return driver.load(self._core, self._port, self._request(plan), streams, start_rate, pending)

    def _request(self, plan: Plan) -> Request:
        if not self.server.posts_message:
            return Request.get("/api/v1/stream", plan)
        # One user per stream, so that limits per user do not apply.
        headers = {"X-Proxy-Secret": SECRET, "X-Forwarded-User": f"user-{time.monotonic_ns()}-{{n}}"}
        return Request.post("/api/chat/stream", headers, plan.message)

    def check_reply(self) -> None:
        """Requests one complete reply before anything is measured. Raises Unavailable if it fails."""
        with self.load(ONE_WORD, 1) as load:
            if load.wait_ended(15)["completed"] != 1:
                raise Unavailable("the server does not reply")
        self.start_seconds = time.monotonic() - self._started_at
        self._pids = workers(self._master)

    def warm_up(self, replies: int = WARM_UP_REPLIES) -> None:
        with self.load(ONE_WORD, replies, pending=8) as load:
            load.wait_ended(60)

    def cpu_seconds(self) -> float:
        return cpu_seconds(self._pids)

    def driver_seconds(self) -> float:
        """CPU of the broker stand-in; the load generator reports its own."""
        return cpu_seconds([self.broker.pid])

    def memory_kib(self) -> int:
        return memory_kib(self._pids)


@contextlib.contextmanager
def start_testbed(server: Server, cores: Cores) -> Iterator[Testbed]:
    """Raises Unavailable if the server does not start or reply."""
    log = OUT / "log" / f"{server.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("wb"))
        broker = stack.enter_context(driver.broker(cores.driver))
        port = free_port()
        process = stack.enter_context(
            running(
                server.command(port, broker.port),
                cores.server,
                environment=_environment(server, port, broker),
                directory=server.directory,
                output=output,
                errors=output,
            )
        )
        testbed = Testbed(server, cores.driver, port, broker, process.pid)
        try:
            wait_for_port(port, process, 30)
            testbed.check_reply()
        except Unavailable as error:
            raise Unavailable(f"{error}; its last log line: {_last_line(log)}") from error
        yield testbed


def _last_line(log: Path) -> str:
    return (log.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]


def _environment(server: Server, port: int, broker: Broker) -> dict[str, str]:
    """A minimal environment: the caller's REDIS_URL or proxy settings would affect the results."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    address = {"PORT": str(port), "BROKER_BASE_URL": f"http://127.0.0.1:{broker.port}", "BROKER_API_KEY": SECRET}
    return inherited | address | server.environment


def versions() -> dict[str, str]:
    """Versions of the servers' software, for the raw results."""
    installed = {"python": sys.version.split()[0], "node": _output_of(["node", "--version"]).lstrip("v")}
    for name, python in (("ours", sys.executable), ("peers", str(PEERS_BIN / "python"))):
        packages = _output_of([python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"])
        with contextlib.suppress(ValueError):
            listed = {package["name"].lower(): package["version"] for package in json.loads(packages)}
            names = ("flask", "gunicorn", "gevent", "requests", "sseclient-py", "fastapi", "uvicorn", "httpx", "sse-starlette")
            installed |= {f"{name}: {package}": listed[package] for package in names if package in listed}
    if nginx := _nginx():
        installed["nginx"] = _output_of([nginx, "-v"]).rpartition("/")[2]
    return installed


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
