"""Processes that send webhooks are killed at random: each webhook arrives, under one id, and those of a user in order."""

import json
import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.live import BROKER_KEY, Server, eventually, free_port
from tests.redis_server import RedisServer
from tests.wire_server import CUT, Request, WireServer, reply

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGES, USERS = 250, 25
DEADLINE = 60.0
SETTINGS = {
    "BROKER_API_KEY": BROKER_KEY,
    "WEBHOOK_SECRET": SECRET,
    "WEBHOOK_SECONDS": "1",
    "WEBHOOK_RETRY_SECONDS": ",".join(["0.2"] * 50),
    "LEASE_SECONDS": "1",
    "ECHO_WORD_SECONDS": "0",
    "QUEUE_DEPTH_PER_USER": "100",
}


class Receiver:
    """Fails a tenth of the requests in several ways, and records those that it answers with 204."""

    def __init__(self) -> None:
        self.ids: dict[str, set[str]] = defaultdict(set)
        """Webhook ids by message."""
        self.order: dict[str, list[str]] = defaultdict(list)
        """Messages by user, as they first arrived in a request, answered or not."""
        self.accepted: set[str] = set()
        self._rng = random.Random(5)
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> list[Any]:
        data = Webhook(SECRET).verify(request.body, request.headers)["data"]
        with self._lock:
            self.ids[data["message_id"]].add(request.headers["webhook-id"])
            if data["client_message_id"] not in self.order[data["user_id"]]:
                self.order[data["user_id"]].append(data["client_message_id"])
            kind = self._rng.choice(["500", "cut", *["ok"] * 18])
            if kind == "ok":
                self.accepted.add(data["message_id"])
        return {"ok": [reply(b"", "204 No Content")], "500": [reply(b"", "500 Oops")], "cut": [CUT]}[kind]


def post(port: int, user_id: str, number: int, url: str) -> str:
    """Repeats the message until a broker accepts it. Returns its id."""
    content = {"user_id": user_id, "org_id": "home", "client_id": "web", "message": f"text {number}"}
    body = json.dumps(content | {"client_message_id": f"{number:04}", "callback_url": url})
    headers = {"X-API-Key": BROKER_KEY, "Content-Type": "application/json"}
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("POST", "/api/v1/message", body, headers)
            response = connection.getresponse()
            content = json.loads(response.read())
            if response.status == 200:
                return str(content["message_id"])
        except (OSError, HTTPException, ValueError):
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise AssertionError("no broker accepted the message")


def send_all(port: int, url: str) -> set[str]:
    def send_of(user: int) -> list[str]:
        return [post(port, f"user-{user}", number, url) for number in range(MESSAGES // USERS)]

    with ThreadPoolExecutor(USERS) as executor:
        return {message_id for ids in executor.map(send_of, range(USERS)) for message_id in ids}


def kill_until(done: Callable[[], bool], kill: Callable[[], None], rng: random.Random) -> None:
    deadline = time.monotonic() + DEADLINE
    kills = 0
    while not done() and time.monotonic() < deadline:
        time.sleep(rng.uniform(0.3, 1.2))
        if kills < 8:
            kill()
            kills += 1
    assert kills >= 3


def assert_complete(receiver: Receiver, ids: set[str]) -> None:
    assert eventually(lambda: receiver.accepted >= ids, DEADLINE), len(ids - receiver.accepted)
    assert len(ids) == MESSAGES
    assert all(len(receiver.ids[message_id]) == 1 for message_id in ids)
    assert all(order == sorted(order) for order in receiver.order.values())
    assert len({name for names in receiver.ids.values() for name in names}) == MESSAGES


@pytest.mark.slow
def test_workers_with_redis_are_killed_at_random(tmp_path: Path) -> None:
    receiver, rng = Receiver(), random.Random(7)
    with RedisServer(tmp_path) as redis, WireServer(receiver) as server:
        settings = SETTINGS | {
            "REDIS_URL": redis.url,
            "DATABASE_URL": f"sqlite:///{tmp_path}/chat.db",
            "WEBHOOK_ALLOW_ORIGINS": server.url,
        }
        web = Server("broker", tmp_path / "broker.log", RUN_WORKER="0", **settings)
        workers = [Server("worker", tmp_path / f"worker-{number}.log", **settings) for number in range(2)]
        started = [web, *workers]

        def kill() -> None:
            workers.pop(rng.randrange(len(workers))).kill(signal.SIGKILL)
            workers.append(Server("worker", tmp_path / f"worker-{len(started)}.log", **settings))
            started.append(workers[-1])

        try:
            web.wait_until_ready()
            with ThreadPoolExecutor(1) as executor:
                sending = executor.submit(send_all, web.port, f"{server.url}/hook")
                kill_until(lambda: sending.done() and receiver.accepted >= sending.result(), kill, rng)
            assert_complete(receiver, sending.result())
        finally:
            for process in started:
                process.crash()


@pytest.mark.slow
def test_a_broker_with_a_journal_is_killed_at_random(tmp_path: Path) -> None:
    receiver, rng, port = Receiver(), random.Random(11), free_port()
    with WireServer(receiver) as server:
        settings = SETTINGS | {
            "QUEUE_FILE": f"{tmp_path}/queue.db",
            "DATABASE_URL": f"sqlite:///{tmp_path}/chat.db",
            "WEBHOOK_ALLOW_ORIGINS": server.url,
        }
        started = [Server("broker", tmp_path / "broker.log", port, **settings)]

        def kill() -> None:
            started[-1].crash()
            started.append(Server("broker", tmp_path / "broker.log", port, **settings))

        try:
            started[0].wait_until_ready()
            with ThreadPoolExecutor(1) as executor:
                sending = executor.submit(send_all, port, f"{server.url}/hook")
                kill_until(lambda: sending.done() and receiver.accepted >= sending.result(), kill, rng)
            assert_complete(receiver, sending.result())
        finally:
            for process in started:
                process.crash()
