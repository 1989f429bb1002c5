"""Unread responses of every kind: their clients are disconnected in time, and they do not delay a deploy."""

import http.client
import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import quote

import pytest

from tests.api.engine_requests import RECORDING
from tests.db.talk import ROOM, ConversationBrowser
from tests.live import BROKER_KEY, Browser, Server, eventually, head, status_of
from tests.ops.numbers import numbers
from tests.wire_server import HANG, LAST_CHUNK, Request, WireServer, chunk, reply, stream_head

pytestmark = [pytest.mark.live, pytest.mark.timeout(90)]

KIB, MIB = 2**10, 2**20
CLIENTS = 6
EXIT_SECONDS = 4.0
"""Seconds after DRAIN_SECONDS that a process takes to exit, on a busy machine."""
UPSTREAM_CONNECTIONS = 8
"""Descriptors of pooled connections to services, and of an event loop."""
PIPELINED = 20_000
"""Requests whose responses exceed the kernel's buffers."""
WORDS = "." * 4 * MIB
TURN = {"user_message": "?", "assistant_response": "." * 70 * KIB}


def post_request(path: str, **content: object) -> bytes:
    body = json.dumps(content).encode()
    return head("POST", path, body=body) + body


LARGE = post_request("/api/chat", message="/big 8192")
SMALL = {
    "file": head("GET", "/static/sse.js"),
    "page": head("GET", "/"),
    "OpenAPI": head("GET", "/openapi.json"),
    "metrics": head("GET", "/metrics"),
    "health": head("GET", "/healthz"),
    "error": head("GET", "/nowhere"),
    "HEAD": head("HEAD", "/"),
    "304": head("GET", "/static/sse.js", "If-Modified-Since: Fri, 31 Dec 2100 00:00:00 GMT"),
}


def engine_reply(request: Request) -> list[bytes]:
    """Replies of about 4 MB."""
    content = {"responses": [WORDS], "response_language": "en", "voice_audio_base64": None}
    if request.path.endswith(".mp3"):
        return [reply(bytes(8 * MIB), content_type="audio/mpeg")]
    if "/history" in request.path:
        return [reply(json.dumps({"entries": [TURN] * 50, "total_count": 50}).encode())]
    if request.path.endswith("/stream"):
        event = json.dumps({"type": "complete", "response": content}).encode()
        return [stream_head(), chunk(b"data: " + event + b"\n\n"), LAST_CHUNK]
    return [reply(json.dumps(content).encode())]


@pytest.fixture
def engine() -> Iterator[WireServer]:
    with WireServer(engine_reply) as engine:
        yield engine


def large_requests(server: Server, engine: WireServer) -> dict[str, bytes]:
    """Requests whose responses exceed the kernel's buffers, by name."""
    return {
        "complete reply": post_request("/api/chat", message="hello"),
        "OpenAI's complete reply": post_request(
            "/v1/chat/completions", model="default", messages=[{"role": "user", "content": "hello"}]
        ),
        "stream": post_request("/api/chat/stream", message="hello"),
        "history": head("GET", "/api/chat/history"),
        "conversation": head("GET", f"{long_conversation(ConversationBrowser(server))}?limit=100"),
        "recording": head("GET", f"/api/audio?url={quote(engine.url + RECORDING, safe='')}"),
    }


def long_conversation(talk: ConversationBrowser) -> str:
    """Creates a conversation whose messages take 6 MB in JSON. Returns their path."""
    conversation = talk.begin()
    for _ in range(34):
        talk.tell(conversation, "\N{BOX DRAWINGS LIGHT VERTICAL}" * 30_000)
    return f"{ROOM}/{conversation}/messages"


def cut_count(server: Server, reason: str) -> float:
    shown = numbers(Browser(server).request("GET", "/metrics").read().decode())
    return shown.get(f"chat_readers_cut_total{{why={reason}}}", 0.0)


class UnreadClients:
    """Clients that send requests and never read."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._sockets = ExitStack()
        self.sizes: list[int] = []
        self._since = 0.0
        self.descriptors = server.descriptors()

    def connect(self, *requests: bytes) -> None:
        """Opens a connection per request."""
        for request in requests:
            sock = self._sockets.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
            sock.connect(("127.0.0.1", self._server.port))
            threading.Thread(target=_send, args=(sock, request), daemon=True).start()

    def are_stuck(self, clients: int) -> bool:
        """Whether the server's writes to all of them block."""
        sizes = self._queues()
        if sizes != self.sizes:
            self.sizes, self._since = sizes, monotonic()
        return len(sizes) == clients and monotonic() > self._since + 0.3

    def _queues(self) -> list[int]:
        """The sizes in bytes of the non-empty send queues of the server's connections."""
        sleep(0.1)  # Reading /proc/net/tcp is slow; without a pause the clients could not send.
        port, established = f":{self._server.port:04X}", "01"
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        sizes = [int(line[4].partition(":")[0], 16) for line in lines if line[1].endswith(port) and line[3] == established]
        return [size for size in sizes if size]

    def are_cut(self) -> bool:
        return not self._queues() and self._server.descriptors() <= self.descriptors + UPSTREAM_CONNECTIONS

    def __enter__(self) -> "UnreadClients":
        return self

    def __exit__(self, *_: object) -> None:
        self._sockets.close()


def _send(sock: socket.socket, request: bytes) -> None:
    with suppress(OSError):
        sock.sendall(request)


def test_unread_large_responses_are_disconnected(start, engine, single):
    server = start(single, ENGINE_BASE_URL=engine.url, SLOW_READER_SECONDS="1")
    requests = large_requests(server, engine)

    with UnreadClients(server) as unread:
        unread.connect(*requests.values())

        assert eventually(lambda: cut_count(server, "slow") == len(requests), 30)
        assert eventually(unread.are_cut, 20)
    assert "Traceback" not in server.log, server.log[-3000:]


def test_unread_pipelined_small_responses_are_disconnected(start):
    server = start(SLOW_READER_SECONDS="1")

    with UnreadClients(server) as unread:
        unread.connect(*(request * PIPELINED for request in SMALL.values()))

        assert eventually(lambda: cut_count(server, "slow") == len(SMALL), 40)
        assert eventually(unread.are_cut, 20)
    assert "Traceback" not in server.log, server.log[-3000:]


@pytest.mark.slow
def test_unread_responses_are_freed(start):
    server = start(SLOW_READER_SECONDS="1")

    with UnreadClients(server) as unread:
        memory = []
        for round_ in (1, 2, 3):  # A process may keep freed memory for reuse.
            unread.connect(*[LARGE] * CLIENTS)
            assert eventually(partial(are_cut_off, server, round_ * CLIENTS), 30)
            assert eventually(unread.are_cut, 20)
            memory.append(server.memory())

    assert memory[-1] - memory[0] < CLIENTS * 8 * MIB / 2


def are_cut_off(server: Server, times: int) -> bool:
    return cut_count(server, "slow") == times


@pytest.mark.slow
@pytest.mark.alone
def test_unread_responses_do_not_delay_a_deploy(start, engine):
    server = start(ENGINE_BASE_URL=engine.url, DRAIN_SECONDS="2")
    requests = large_requests(server, engine).values()

    with UnreadClients(server) as unread:
        unread.connect(*requests)
        assert eventually(lambda: unread.are_stuck(len(requests)), 40), unread.sizes
        unread.connect(*(request * PIPELINED for request in SMALL.values()))
        assert eventually(lambda: unread.are_stuck(len(requests) + len(SMALL)), 40), unread.sizes
        started = monotonic()

        assert server.stop(signal.SIGTERM) == 0

        assert monotonic() - started < 2 + EXIT_SECONDS
    assert "Traceback" not in server.log, server.log[-3000:]
    assert "graceful timeout" not in server.log


@pytest.mark.slow
@pytest.mark.alone
def test_the_broker_disconnects_slow_readers(start):
    server = start("broker", BROKER_API_KEY=BROKER_KEY, DRAIN_SECONDS="2", SLOW_READER_SECONDS="3")
    request = head("GET", "/health") * PIPELINED

    with UnreadClients(server) as unread:
        unread.connect(request)
        assert eventually(lambda: unread.are_stuck(1), 20)
        assert eventually(unread.are_cut, 20)
        unread.connect(request)
        assert eventually(lambda: unread.are_stuck(1), 20)
        started = monotonic()

        assert server.stop(signal.SIGTERM) == 0
        assert monotonic() - started < 2 + EXIT_SECONDS


def test_a_slow_reader_receives_everything(start, single):
    server = start(single, SLOW_READER_SECONDS="1")

    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        sock.sendall(LARGE)
        started, received = monotonic(), b""
        while not received.endswith(b"}\n"):
            received += sock.recv(512 * KIB)
            sleep(max(0.0, len(received) / (4 * MIB) - (monotonic() - started)))  # 4 MiB per second.

    assert len(received) > 8 * MIB
    assert monotonic() - started > 1.9, "longer than SLOW_READER_SECONDS"


def test_a_connection_is_reused_after_a_large_response(start):
    server = start(SLOW_READER_SECONDS="1")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)

    sizes = []
    for path in ("/openapi.json", "/static/sse.js", "/healthz", "/openapi.json"):
        connection.request("GET", path)
        sock = connection.sock
        sizes.append(len(connection.getresponse().read()))

    assert sizes[0] == sizes[-1] > 0
    assert connection.sock is sock, "no response closed it"
    sleep(1.1)  # An idle connection is not a slow reader.
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.alone
def test_a_keep_alive_connection_does_not_delay_a_deploy(start):
    server = start(DRAIN_SECONDS="1")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", "/healthz")
    connection.getresponse().read()
    started = monotonic()

    assert server.stop(signal.SIGTERM) == 0

    assert monotonic() - started < 1 + EXIT_SECONDS, "sooner than gunicorn's keepalive"
    connection.close()


@pytest.mark.alone
def test_a_slow_request_body_does_not_delay_a_deploy(start):
    server = start(DRAIN_SECONDS="2")

    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(LARGE[:-5])
        assert eventually(lambda: server.log_lines)
        started = monotonic()

        assert server.stop(signal.SIGTERM) == 0
        assert monotonic() - started < 2 + EXIT_SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("name", ["complete reply", "conversation"])
def test_unread_responses_count_towards_the_users_limit(start, engine, name):
    server = start(ENGINE_BASE_URL=engine.url, MAX_STREAMS_PER_USER="2", SLOW_READER_SECONDS="3")
    request = large_requests(server, engine)[name]

    with UnreadClients(server) as unread:
        unread.connect(request, request)
        assert eventually(lambda: unread.are_stuck(2), 20)
        assert status_of_request(server, request) == 429
        assert status_of(Browser(server).say("hello")) == 200, "streams are counted separately"
        assert eventually(unread.are_cut, 15)

    assert status_of_request(server, request) == 200


def status_of_request(server: Server, request: bytes) -> int:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        sock.sendall(request)
        return int(sock.recv(12)[9:12])


def test_a_browser_that_disconnects_while_waiting_leaks_nothing(start, single):
    with WireServer([HANG]) as engine:
        server = start(single, ENGINE_BASE_URL=engine.url, MAX_STREAMS_PER_USER="1")
        descriptors = server.descriptors()

        for number in range(1, 4):
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
                sock.sendall(post_request("/api/chat", message="hello"))
                assert engine.wait_for(partial(has_requests, engine, number), 20), "the previous slot has been released"
            assert eventually(partial(has_disconnects, server, number), 20)

        assert eventually(lambda: server.descriptors() <= descriptors + 1, 20)


def has_requests(engine: WireServer, times: int) -> bool:
    return len(engine.requests) == times


def has_disconnects(server: Server, times: int) -> bool:
    return [line.get("status") for line in server.log_lines].count(499) == times
