import socket
import ssl
import threading
from time import monotonic

import pytest
import urllib3

from bff.errors import ClientDisconnected, UpstreamUnavailable
from bff.http import waiting
from bff.upstream import http
from bff.upstream.http import EventSource, new_session, tls_context
from tests.live import in_parallel
from tests.upstream.http.client import DATA, fetch, first_event, pieces, read
from tests.wire_server import END, HANG, LAST_CHUNK, WireServer, chunk, reply, stream_head


def test_the_connection_of_an_ended_stream_is_reused():
    session = new_session()

    with WireServer([stream_head(), chunk(DATA), LAST_CHUNK]) as server:
        for _ in range(3):
            assert read(EventSource(fetch(server.url, session), 5.0)) == DATA

        assert (len(server.requests), server.open_connections) == (3, 1)


def test_the_connection_of_an_unfinished_stream_is_closed():
    session = new_session()

    with WireServer([stream_head(), chunk(DATA), HANG], [reply(b"{}")]) as server:
        source = EventSource(fetch(server.url, session), 5.0)
        first_event(source)
        source.close()

        assert http.read_json(fetch(server.url, session), monotonic() + 5) == {}
        assert server.wait_for(lambda: server.hung_up == 1)


def test_an_ip_address_is_not_looked_up(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("an address was looked up"))

    with WireServer([reply(b"{}")]) as server:
        fetch(server.url.replace("localhost", "127.0.0.1")).close()


def test_cookies_are_not_kept():
    session = new_session()

    with WireServer([reply(b"{}", Set_Cookie="sticky=1; Path=/")], [reply(b"{}")]) as server:
        for _ in range(2):
            http.read_json(fetch(server.url, session), monotonic() + 5)

        assert "cookie" not in server.requests[1].headers


def test_netrc_and_environment_proxies_are_ignored(monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine localhost login a password b\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    with WireServer([reply(b"{}")]) as server:
        fetch(server.url).close()

        assert "authorization" not in server.requests[0].headers


def test_a_connection_is_reused():
    session = new_session()

    with WireServer([reply(b'{"a": 1}')]) as server:
        for _ in range(5):
            assert http.read_json(fetch(server.url, session), monotonic() + 5) == {"a": 1}

        assert server.open_connections == 1


def test_an_idle_connection_is_checked_without_polling(monkeypatch):
    session = new_session()
    monkeypatch.setattr(urllib3.connection, "wait_for_read", lambda *_, **__: pytest.fail("urllib3 polled the connection"))

    with WireServer([reply(b"{}")]) as server:
        for _ in range(2):
            assert http.read_json(fetch(server.url, session), monotonic() + 5) == {}


def test_a_connection_with_surplus_bytes_is_not_reused():
    session = new_session()

    with WireServer([reply(b"{}") + b"HTTP/1.1 200 OK\r\n"]) as server:
        for _ in range(2):
            assert http.read_json(fetch(server.url, session), monotonic() + 5) == {}

        assert server.wait_for(lambda: server.open_connections == 0, 15)


@pytest.fixture
def trusting_session(authority, tmp_path):
    """A session that trusts the authority."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return new_session(tls_context(str(tmp_path / "ca.pem")))


@pytest.fixture
def server_tls(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def test_a_stream_is_read_over_tls(trusting_session, server_tls):
    big = b"data: " + b"x" * 200_000 + b"\n\n"
    steps = [stream_head(), chunk(big), 0.05, *map(chunk, pieces(DATA, 777)), LAST_CHUNK]

    with WireServer(steps, tls=server_tls) as server:
        assert read(EventSource(fetch(server.url, trusting_session), 5.0)) == big + DATA


def test_bytes_that_arrive_with_the_headers_are_returned_at_once_over_tls(trusting_session, server_tls):
    data = b"data: " + b"x" * 12_000 + b"\n\n"

    with WireServer([stream_head() + chunk(data), HANG], tls=server_tls) as server:
        source = EventSource(fetch(server.url, trusting_session), 60.0)
        event = first_event(source)
        source.close()

    assert event is not None
    assert len(event.data) == 12_000


def test_waiting_for_a_response_can_be_cancelled(trusting_session, server_tls):
    for tls, session in ((None, new_session()), (server_tls, trusting_session)):
        waiter = waiting.new_waiter()
        with WireServer([HANG], tls=tls) as server:
            threading.Timer(0.1, waiter.cancel, [ClientDisconnected()]).start()
            start = monotonic()
            with pytest.raises(ClientDisconnected):
                fetch(server.url, session, seconds=10, waiter=waiter)

            assert monotonic() - start < 2
            assert server.wait_for(lambda: server.hung_up == 1)
        waiter.close()


def test_an_untrusted_certificate_is_rejected(server_tls):
    with WireServer([reply()], tls=server_tls) as server, pytest.raises(UpstreamUnavailable):
        fetch(server.url)


def test_a_certificate_for_another_host_is_rejected(trusting_session, server_tls):
    with WireServer([reply()], tls=server_tls) as server, pytest.raises(UpstreamUnavailable):
        fetch(server.url.replace("localhost", "127.0.0.1"), trusting_session)

    assert not server.requests


def test_all_connections_share_one_tls_context(trusting_session, server_tls, monkeypatch):
    loaded = []
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: loaded.append(1))

    with WireServer([reply(b"{}"), END], tls=server_tls) as server:
        in_parallel(5, lambda _: fetch(server.url, trusting_session).close())

    assert not loaded, "the CA bundle was parsed again for a connection"
