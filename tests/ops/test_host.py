"""HOST: the addresses on which gunicorn listens."""

import socket
from contextlib import closing

import pytest

from tests.config.defaults import read
from tests.live import BASE_ENVIRONMENT
from tests.missing import missing

pytestmark = pytest.mark.live
PRODUCTION = {"APP_ENV": "production", "METRICS_TOKEN": "m"}


@pytest.fixture
def ipv6():
    """Skips the test on a machine without IPv6; in CI it fails."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        missing("IPv6")


def answers(address: str, port: int) -> bool:
    """Whether /healthz answers there."""
    try:
        with closing(socket.create_connection((address, port), 5)) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return sock.recv(1024).startswith(b"HTTP/1.1 200")
    except ConnectionRefusedError:
        return False


def test_on_all_ipv6_addresses_it_answers_ipv4_too(start, ipv6):
    port = start(HOST="::").port

    assert answers("::1", port)
    assert answers("127.0.0.1", port)
    assert answers("127.0.0.2", port)


@pytest.mark.parametrize(("environment", "answers_others"), [({}, False), (PRODUCTION, True), ({"HOST": "0.0.0.0"}, True)])
def test_development_listens_on_localhost_only(start, environment, answers_others):
    port = start(**environment).port

    assert answers("127.0.0.1", port)
    assert answers("127.0.0.2", port) == answers_others


def test_an_ipv6_address_is_bracketed_before_the_port():
    assert read(HOST="::1", PORT="8001").socket_address() == "[::1]:8001"
    assert read(HOST="chat.internal").socket_address() == "chat.internal:8000"
    assert "HOST" not in BASE_ENVIRONMENT
